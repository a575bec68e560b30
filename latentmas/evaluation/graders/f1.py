"""Grade short answers by the words that they share with the correct one."""

from __future__ import annotations

from typing import Any

from latentmas.evaluation.graders import Grade, Grader, Row, graders
from latentmas.evaluation.grading.texts.gold import accepted, wordless
from latentmas.evaluation.grading.texts.words import short_answer, token_f1, words

__all__ = ["TokenF1"]


@graders.register("f1")
class TokenF1(Grader):
    """F1 of the words of an answer and the correct one, the highest over several correct answers.

    Case, punctuation, articles and white space are ignored. An answer is right if its words are the
    correct ones, in any order; any other gets a part of the score. Answers to closed questions
    ("yes", "no") get no part marks, as in HotpotQA. The answer is found as by `em`.
    """

    def grade(self, text: str, gold: Any, row: Row) -> Grade:
        """Judge a text by the words that it shares with the correct answer."""
        found = words(short_answer(text))
        if not found:
            return Grade(False, None, "no answer found", partial=0.0)
        score = max((token_f1(found, words(one)) for one in accepted(gold)), default=0.0)
        reason = "equal" if score == 1 else "partly equal" if score else "different"
        return Grade(score == 1, " ".join(found), reason, partial=score)

    def gold_problem(self, gold: Any, row: Row) -> str | None:
        """Why no answer can share words with the correct one."""
        return wordless(gold)
