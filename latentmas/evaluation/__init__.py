"""Measures over a team's answers."""

from latentmas.evaluation.intervals import wilson
from latentmas.evaluation.match import accuracy, exact_match

__all__ = ["accuracy", "exact_match", "wilson"]
