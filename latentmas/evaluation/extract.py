"""The answer within a text, as metrics read it."""

from __future__ import annotations

from latentmas.evaluation.metrics._boxed import boxed
from latentmas.evaluation.metrics.choice import letter

__all__ = ["extract_answer"]


def extract_answer(text: str, metric: str = "") -> str | None:
    r"""The answer that a text holds: its last `\boxed{…}`, or the letter that `choice` finds.

    Args:
        text: what was written.
        metric: name of the metric that judges it.

    Returns:
        The answer; None where the text holds none.
    """
    return letter(text) if metric == "choice" else boxed(text)
