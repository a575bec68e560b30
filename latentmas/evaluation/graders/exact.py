"""Grade by equality of texts."""

from __future__ import annotations

from typing import Any

from latentmas.evaluation.graders import Grade, Grader, Row, graders
from latentmas.evaluation.grading.texts.gold import accepted
from latentmas.evaluation.match import exact_match

__all__ = ["Exact"]


@graders.register("exact")
class Exact(Grader):
    """Whether a text equals the correct answer, or one of several, up to whitespace."""

    def grade(self, text: str, gold: Any, row: Row) -> Grade:
        """Judge a text; all of it is the answer."""
        right = any(exact_match(text, one) for one in accepted(gold))
        return Grade(right, " ".join(text.split()), "equal" if right else "different")
