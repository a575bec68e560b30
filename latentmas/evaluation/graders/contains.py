"""Grade texts by whether the correct answer occurs in them."""

from __future__ import annotations

from typing import Any

from latentmas.evaluation.graders import Grade, Grader, Row, graders
from latentmas.evaluation.grading.texts.gold import accepted, wordless
from latentmas.evaluation.grading.texts.thoughts import after_thoughts
from latentmas.evaluation.grading.texts.words import words

__all__ = ["Contains"]


@graders.register("contains")
class Contains(Grader):
    """Whether the correct answer, or one of several, occurs in a text as whole words.

    Case, punctuation, articles and white space are ignored. A text that lists many candidates is
    right too; report `em` beside it.
    """

    def grade(self, text: str, gold: Any, row: Row) -> Grade:
        """Look for the correct answers in a text."""
        told = words(after_thoughts(text))
        if not told:
            return Grade(False, None, "no answer found")
        for one in accepted(gold):
            sought = words(one)
            if sought and f" {' '.join(sought)} " in f" {' '.join(told)} ":
                return Grade(True, " ".join(sought), "contained")
        return Grade(False, None, "not contained")

    def gold_problem(self, gold: Any, row: Row) -> str | None:
        """Why the correct answer cannot occur."""
        return wordless(gold)
