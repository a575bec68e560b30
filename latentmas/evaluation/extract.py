"""Extract the answer from a text, as the metrics do."""

from __future__ import annotations

from latentmas.evaluation.graders._boxed import boxed
from latentmas.evaluation.graders.choice import letter

__all__ = ["extract_answer"]


def extract_answer(text: str, metric: str = "") -> str | None:
    r"""Extract a text's answer: its last `\boxed{…}` or, for `choice`, the letter of an option.

    Args:
        text: generated text.
        metric: name of the metric that judges the text.

    Returns:
        The answer; None if the text has none.
    """
    return letter(text) if metric == "choice" else boxed(text)
