"""Teaches: the same graph talking in text, on the same loaded models, as a baseline."""

import latentmas as lm
from latentmas.testing import tiny_backbone

tiny = tiny_backbone("qwen3", 16)
graph = lm.templates.sequential(planner=tiny, critic=tiny, solver=tiny, rounds=2, latent_steps=4)
latent = graph.compile().load()
twin = latent.text_twin(max_new_tokens=4)

questions = ["What is 3 + 4?", "Why?"]
for name, system in (("latent", latent), ("text", twin)):
    result = system.run(questions, max_new_tokens=4)
    written = sum(record.new_tokens for record in result.accounting)
    print(f"{name}: {written} tokens written, {result.seconds:.2f} s")
