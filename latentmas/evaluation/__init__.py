"""Measures over a team's answers."""

from latentmas.evaluation.intervals import wilson
from latentmas.evaluation.match import accuracy, exact_match
from latentmas.evaluation.metrics import Metric, metrics
from latentmas.evaluation.scoring import Difference, Evaluation, evaluate, paired_difference
from latentmas.evaluation.timing import Timing, time_executors

__all__ = [
    "accuracy",
    "Difference",
    "evaluate",
    "Evaluation",
    "exact_match",
    "Metric",
    "metrics",
    "paired_difference",
    "Timing",
    "time_executors",
    "wilson",
]
