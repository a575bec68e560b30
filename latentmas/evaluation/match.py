"""Exact match of decoded answers."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["accuracy", "exact_match"]


def exact_match(prediction: str, answer: str) -> bool:
    """Whether two texts are equal up to whitespace."""
    return prediction.split() == str(answer).split()


def accuracy(predictions: Iterable[str], answers: Iterable[str]) -> float:
    """Share of exact matches, 0 to 1.

    Raises:
        ValueError: the numbers of predictions and answers differ, or there are none.
    """
    pairs = list(zip(predictions, answers, strict=True))
    if not pairs:
        raise ValueError("no predictions to score")
    return sum(exact_match(p, a) for p, a in pairs) / len(pairs)
