"""Teaches: rows from a JSONL file, inner loop, outer loop, save, load, run."""

import json
from pathlib import Path

import latentmas as lm
from latentmas.testing import tiny_backbone

path = Path("rows.jsonl")
path.write_text(
    "".join(
        json.dumps({"question": f"{n} + 1 =", "plan": "add one", "answer": str(n + 1)}) + "\n"
        for n in range(32)
    )
)
rows = [json.loads(line) for line in path.read_text().splitlines()]

expert, learner = tiny_backbone("llama", 32), tiny_backbone("qwen2", 16)
graph = lm.templates.distillation(expert=expert, learner=learner, rounds=2, latent_steps=2)
system = graph.compile().load()

inner = lm.InnerConfig("out/inner", max_steps=5, targets={"expert": "plan"})
lm.InnerTrainer(system, inner, train_dataset=rows).train()
outer = lm.OuterConfig("out/outer", max_steps=5, save_strategy="steps", save_steps=5)
trainer = lm.OuterTrainer(system, outer, train_dataset=rows, eval_dataset=rows[:4])
trainer.train()
print(trainer.evaluate())

system.save_pretrained("out/team")
print(lm.System.from_pretrained("out/team")("3 + 1 =", max_new_tokens=4).text)
