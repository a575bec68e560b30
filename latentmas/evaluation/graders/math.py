"""Grade results of calculations."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.evaluation.graders import Grade, Grader, Row, graders
from latentmas.evaluation.grading.formulas.latex import compact, is_words, tidied
from latentmas.evaluation.grading.formulas.numbers import number
from latentmas.evaluation.grading.formulas.result import correct_result, result
from latentmas.evaluation.grading.formulas.workers import Workers
from latentmas.evaluation.grading.texts.gold import accepted

__all__ = ["Math"]

_WORKER = Path(__file__).parent.with_name("grading") / "formulas" / "math_worker.py"
_LONGEST = 2000
"""Characters of an answer that is compared."""
_BASED = re.compile(r"[0-9A-Za-z]+_\{?\d+\}?")
"""A numeral with its base, such as `52_8`."""


@graders.register("math")
class Math(Grader):
    r"""Whether a text comes to the correct result, by mathematical equality.

    The result is taken from the last `\boxed{…}`, the last line that begins with `####`, what
    follows "the answer is", or the last formula or number. Numbers are compared exactly: 0.5, 1/2
    and `\frac{1}{2}` agree, 0.33 and 1/3 do not. Words are compared regardless of case. Everything
    else is compared by math-verify, in processes that are stopped at a time limit.
    """

    def __init__(self, *, time_limit: float = 5.0, workers: int = 2) -> None:
        """Make a grader; its processes are started when they are first needed.

        Args:
            time_limit: seconds per comparison, after which the answer counts as wrong.
            workers: maximum number of processes.

        Raises:
            LatentMASError: math-verify is missing, or an option is out of range.
        """
        if importlib.util.find_spec("math_verify") is None:
            raise LatentMASError(
                "the grader 'math' needs the package math-verify; install it with: "
                "pip install 'latentmas[eval]'"
            )
        if not 0 < time_limit <= 3600:
            raise LatentMASError(f"time_limit must be above 0 and at most 3600, not {time_limit!r}")
        if not 1 <= workers <= 64:
            raise LatentMASError(f"workers must be from 1 to 64, not {workers!r}")
        self._workers = Workers(_WORKER, count=workers, time_limit=time_limit)

    def grade(self, text: str, gold: Any, row: Row) -> Grade:
        """Judge a text by its result."""
        found = result(text)
        answer = tidied(found) if found else ""
        if not answer:
            return Grade(False, None, "no answer found")
        reason = "different"
        for one in accepted(gold):
            same = self._compare(tidied(correct_result(one)), answer)
            if same is True:
                return Grade(True, answer, "equal")
            reason = same or reason
        return Grade(False, answer, reason)

    def gold_problem(self, gold: Any, row: Row) -> str | None:
        """Why the correct answer, or one of several, cannot be compared with."""
        texts = accepted(gold)
        if not texts:
            return "the list of correct answers is empty"
        problems = ((one, self._unreadable(tidied(correct_result(one)))) for one in texts)
        return next((f"{one!r:.80} {problem}" for one, problem in problems if problem), None)

    def vote(self, grade: Grade, others: list[Grade]) -> int | None:
        """Number of the first of `others` whose answer is mathematically equal."""
        for number_, other in enumerate(others):
            if grade.answer is None or other.answer is None:
                same = grade.answer == other.answer
            else:
                same = self._compare(other.answer, grade.answer) is True
            if same:
                return number_
        return None

    def close(self) -> None:
        """End the processes. They are started again when they are needed."""
        self._workers.close()

    def _unreadable(self, gold: str) -> str | None:
        if not gold:
            return "has no result"
        if len(gold) > _LONGEST:
            return f"has a result of {len(gold)} characters; at most {_LONGEST} are compared"
        if number(gold) is not None or is_words(gold):
            return None
        reply = self._workers.ask({"gold": gold})
        if reply.get("readable") is True:
            return None
        return f"cannot be read as mathematics: {_problem(reply) or 'no parser accepts it'}"

    def _compare(self, gold: str, answer: str) -> bool | str:
        """Whether two tidied texts are equal; a reason where this cannot be told."""
        known = _known(gold, answer)
        if known is not None:
            return known or "different"
        if max(len(gold), len(answer)) > _LONGEST:
            return "too long"
        reply = self._workers.ask({"gold": gold, "text": answer})
        return reply.get("same") is True or _problem(reply) or "different"


def _known(gold: str, answer: str) -> bool | None:
    """Whether two tidied texts are equal, where this takes no algebra; None if it does."""
    if not gold:
        return False
    numbers = number(gold), number(answer)
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0].same(numbers[1])
    texts = compact(gold), compact(answer)
    if texts[0] == texts[1]:
        return True
    if any(map(_BASED.fullmatch, texts)) or _kinds(texts) == {"set", "tuple"}:
        return False  # math-verify ignores the base of a numeral, and the order of a tuple
    if is_words(gold) and is_words(answer):
        return gold.casefold().split() == answer.casefold().split()
    return None


def _kinds(texts: tuple[str, str]) -> set[str]:
    """What the brackets round two texts make of them."""
    starts = {"\\{": "set", "(": "tuple", "[": "tuple"}
    return {kind for text in texts for start, kind in starts.items() if text.startswith(start)}


def _problem(reply: dict[str, Any]) -> str:
    return str(reply.get("problem") or reply.get("failed") or "")
