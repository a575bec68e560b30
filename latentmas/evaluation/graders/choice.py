"""Grade multiple-choice answers by their letter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from latentmas.evaluation.graders import Grade, Grader, Row, graders
from latentmas.evaluation.grading.texts.boxed import boxed, unwrapped
from latentmas.evaluation.grading.texts.thoughts import after_thoughts
from latentmas.evaluation.grading.texts.words import words

__all__ = ["Choice", "letter"]

_ALONE = re.compile(r"[\s(\[*_]*([A-Z])(?:[\s).:,\]*_]|$)")
_ARTICLE = re.compile(r"[AI]\s+(?!is\b)[a-z]")
"""Where A or I is a word, as in "I think"."""
_BRACKETED = re.compile(r"\s*(?:\*\*)?\(\s*([a-z])\s*\)")
_WHOLE_LOWER = re.compile(r"\W*([a-z])\W*")
_NAMED = re.compile(
    r"(?i:answer|option|choice)(?i:[*_\s]{1,6}(?:is|are|would\s+be))?[*_\s]{0,6}:?[*_\s]{0,6}"
    r"(?i:(?:the\s)?(?:option|choice)\s)?[\"'*_(\[$\s]{0,6}(?:\\(?:text|textbf|mathrm|mathbf)\{\(?)?"
    r"(?:([A-Z])(?![A-Za-z'’])|(?<=\()([a-z])(?=\)))"
)
_LETTERED = re.compile(r"\(?([A-Z])[).:]\s+")


@graders.register("choice")
class Choice(Grader):
    r"""Whether a text chooses the right option, by its letter from A to Z.

    A text's letter is taken from its last `\boxed{…}`; failing that, from after its last "answer",
    "option" or "choice"; failing that, from its beginning. Lower-case letters count in brackets or
    alone. If the row has `options`, a text that is the wording of one of them chooses it, and the
    correct answer may be a letter, an option's wording or its index from 0. A text without a letter
    is wrong.
    """

    def grade(self, text: str, gold: Any, row: Row) -> Grade:
        """Judge a text by its letter."""
        options = _options(row)
        found = _worded(text, options) or letter(text)
        if found is None:
            return Grade(False, None, "no letter found")
        right = found == _right(gold, options)
        return Grade(right, found, "equal" if right else "different")

    def gold_problem(self, gold: Any, row: Row) -> str | None:
        """Why the correct answer names no option."""
        options = _options(row)
        right = _right(gold, options)
        if right is None:
            among = " and is not one of the row's options" if options else " from A to Z"
            return f"{str(gold)!r:.80} names no option{among}"
        if options and right not in options:
            return f"{str(gold)!r:.80} names option {right}; the row has {', '.join(options)}"
        return None


def letter(text: str) -> str | None:
    """The letter, A to Z, of the option that a text chooses; None if there is none."""
    text = after_thoughts(text)
    inside = boxed(text)
    if inside is not None:
        return _leading(unwrapped(inside))
    named = [upper or lower for upper, lower in _NAMED.findall(text)]
    return named[-1].upper() if named else _leading(text)


def _leading(text: str) -> str | None:
    """The letter that a text begins with, or consists of."""
    match = _ALONE.match(text) or _BRACKETED.match(text) or _WHOLE_LOWER.fullmatch(text)
    if match is None or _ARTICLE.match(text, match.start(1)):
        return None
    return match[1].upper()


def _options(row: Row) -> dict[str, str]:
    """Letter → wording of the options in a row; empty if it has none."""
    given = row.get("options")
    if isinstance(given, Mapping):
        return {str(name).strip().upper(): str(wording) for name, wording in given.items()}
    if not isinstance(given, list | tuple) or len(given) > 26:
        return {}
    letters = [chr(ord("A") + i) for i in range(len(given))]
    return {name: _unlettered(str(w), name) for name, w in zip(letters, given, strict=True)}


def _unlettered(wording: str, name: str) -> str:
    """An option's wording without its letter, as in `A. Desmosomes`."""
    match = _LETTERED.match(wording)
    return wording[match.end() :] if match and match[1] == name else wording


def _worded(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the only option whose wording the text or its box is."""
    if not options:
        return None
    text = after_thoughts(text)
    inside = boxed(text)
    told = words(text if inside is None else unwrapped(inside))
    same = [name for name, wording in options.items() if told and words(wording) == told]
    return same[0] if len(same) == 1 else None


def _right(gold: Any, options: Mapping[str, str]) -> str | None:
    """The letter of the correct option; None if the answer names none."""
    if isinstance(gold, int) and not isinstance(gold, bool):
        return list(options)[gold] if 0 <= gold < len(options) else None
    text = str(gold)
    same = [name for name, wording in options.items() if wording.strip() == text.strip()]
    if len(same) == 1:
        return same[0]
    exact = re.fullmatch(r"\W*([A-Za-z])\W*", text)
    if exact:
        return exact[1].upper()
    return _worded(text, options) or letter(text)
