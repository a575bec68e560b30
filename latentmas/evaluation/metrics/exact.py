"""Grade by exact match."""

from __future__ import annotations

from latentmas.evaluation.match import exact_match
from latentmas.evaluation.metrics import metrics

__all__ = ["exact"]


@metrics.register("exact")
def exact(written: str, right: str) -> bool:
    """Whether both texts are equal up to whitespace."""
    return exact_match(written, right)
