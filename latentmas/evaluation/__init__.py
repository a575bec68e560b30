"""Evaluate teams: metrics, scores with intervals, comparisons and timing."""

from latentmas.evaluation.difference import Difference, paired_difference
from latentmas.evaluation.extract import extract_answer
from latentmas.evaluation.intervals import tango, wilson
from latentmas.evaluation.match import accuracy, exact_match
from latentmas.evaluation.metrics import Metric, metrics
from latentmas.evaluation.scoring import Evaluation, evaluate, pass_at
from latentmas.evaluation.timing import Timing, time_executors

__all__ = [
    "accuracy",
    "Difference",
    "evaluate",
    "Evaluation",
    "exact_match",
    "extract_answer",
    "Metric",
    "metrics",
    "paired_difference",
    "pass_at",
    "tango",
    "Timing",
    "time_executors",
    "wilson",
]
