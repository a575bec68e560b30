"""Teaches: whether messages matter: a team beside its controls, on the same questions.

The demo's three models chase pointers; links that are aligned but untrained get a few questions
right. Training (the tutorial) makes the first line grow and leaves the controls where they are.
"""

from latentmas.demo.run import team
from latentmas.demo.task import heldout_rows
from latentmas.evaluation import evaluate

system = team().compile().load(seed=0)
rows = heldout_rows(64, seed=0)
controls = ["alone", "twin", "zeroed", "shuffled"]
print(evaluate(system, rows, controls=controls, twin_tokens=1, batch_size=64))
