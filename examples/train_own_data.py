"""Teaches: rows from a JSONL file, the loops that suit them, save, load, run.

A new team needs the outer loop alone. With link="recursive", inner="recursive" all four loops run,
and take the expert's texts with targets={"expert": "plan"} where rows have a field `plan`.
"""

import json
from pathlib import Path

import latentmas as lm
from latentmas.testing import tiny_backbone

path = Path("rows.jsonl")
path.write_text(
    "".join(json.dumps({"question": f"{n} + 1 =", "answer": str(n + 1)}) + "\n" for n in range(32))
)
rows = [json.loads(line) for line in path.read_text().splitlines()]

expert, learner = tiny_backbone("llama", 32), tiny_backbone("qwen2", 16)
graph = lm.templates.distillation(expert=expert, learner=learner, rounds=2, latent_steps=2)
system = graph.compile().load()

done = lm.train(system, rows[4:], output_dir="out", eval_rows=rows[:4], max_steps=5)
for stage in done.stages:
    print(stage.loop, stage.steps, stage.scores)

print(lm.System.from_pretrained(done.team)("3 + 1 =", max_new_tokens=4).text)
