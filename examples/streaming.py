"""Teaches: an answer as it is written, several answers from one latent phase, seeds by sample."""

import latentmas as lm
from latentmas.testing import tiny_backbone

tiny = tiny_backbone("qwen3", 16)
graph = lm.templates.distillation(expert=tiny, learner=tiny, rounds=2, latent_steps=3)
system = graph.compile().load()

for piece in system.stream("What is 3 + 4?", max_new_tokens=8):
    print(repr(piece), end=" ")  # closing the iterator would end the run
print()

drawn = {"do_sample": True, "temperature": 0.8, "max_new_tokens": 6}
result = system.run(["What is 3 + 4?", "Why?"], **drawn, num_return_sequences=3, seed=[1, 2])
print([len(answers) for answers in result.sequences], "answers")
print(sum(turn.latent_steps for turn in result.accounting), "latent steps, as for one answer")

alone = system.run(["Why?"], **drawn, num_return_sequences=3, seed=[2])
print("the same alone:", alone.sequences[0] == result.sequences[1])
