"""Teaches: whether messages matter: replace them on their way, and score beside the text twin.

The demo's three models chase pointers; links that are aligned but untrained get a few questions
right. Training (the tutorial) makes the first line grow and leaves the controls where they are.
"""

import torch

from latentmas.demo.run import team
from latentmas.demo.task import heldout_rows
from latentmas.evaluation import evaluate

graph = team()
system = graph.compile().load(seed=0)
rows = heldout_rows(64, seed=0)


def zeroed(name: str, message_BKD: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(message_BKD)


def shuffled(name: str, message_BKD: torch.Tensor) -> torch.Tensor:
    return message_BKD.roll(1, 0)  # another question's


twin = system.text_twin(max_new_tokens=1)
print(evaluate(system, rows, twin=twin, batch_size=64))
for edit in (zeroed, shuffled):
    found = evaluate(system, rows, edit_message=edit, batch_size=64)
    low, high = found.interval
    print(f"messages {edit.__name__}: {found.score:.1%} ({low:.1%} to {high:.1%})")
