"""Equal texts."""

from __future__ import annotations

from latentmas.evaluation.match import exact_match
from latentmas.evaluation.metrics import metrics

__all__ = ["exact"]


@metrics.register("exact")
def exact(written: str, right: str) -> bool:
    """Equal up to white space."""
    return exact_match(written, right)
