"""Grade short answers by equality of their words."""

from __future__ import annotations

from typing import Any

from latentmas.evaluation.graders import Grade, Grader, Row, graders
from latentmas.evaluation.grading.texts.gold import accepted, wordless
from latentmas.evaluation.grading.texts.words import short_answer, words

__all__ = ["ExactMatch"]


@graders.register("em")
class ExactMatch(Grader):
    r"""Whether an answer has the same words as the correct answer, or as one of several.

    Case, punctuation, articles and white space are ignored, as in SQuAD and HotpotQA. The answer is
    the last `\boxed{…}`, the line after the last "answer:", or the whole text.
    """

    def grade(self, text: str, gold: Any, row: Row) -> Grade:
        """Judge a text by its words."""
        found = words(short_answer(text))
        if not found:
            return Grade(False, None, "no answer found")
        right = any(found == words(one) for one in accepted(gold))
        return Grade(right, " ".join(found), "equal" if right else "different")

    def gold_problem(self, gold: Any, row: Row) -> str | None:
        """Why no answer can equal the correct one."""
        return wordless(gold)
