"""Find the result that a text comes to."""

from __future__ import annotations

import re

from latentmas.evaluation.grading.formulas.latex import FUNCTIONS
from latentmas.evaluation.grading.texts.boxed import boxed
from latentmas.evaluation.grading.texts.thoughts import after_thoughts

__all__ = ["correct_result", "result"]

_LONGEST = 2000
"""Characters of an answer; longer ones are not results."""
_LONGEST_LINE = 300
"""Characters of a text that is an expression as a whole."""
_HASHES = re.compile(r"^[ \t]*####[ \t]*(\S[^\n]*?)[ \t]*$", re.MULTILINE)
_MARKED = re.compile(
    r"\banswers?\b[*_\s]{0,8}(?:(?:to|for|of|in|as)\b[^.\n:=]{0,80})?"
    r"(?:\b(?:is|are|was|equals)\b(?!\s+not\b)|[:=]|(?<=\*)\n)[*_\s:=]{0,8}(?=\S)",
    re.IGNORECASE,
)
_FORMULA = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|(?<!\\)\$(?!\d[\d,.]*\s+[A-Za-z]{2})(?P<b>[^$\n]+)(?<!\\)\$"
    r"|\\\((?P<c>[^\n]{1,500}?)\\\)|\\\[(?P<d>.{1,1000}?)\\\]",
    re.DOTALL,
)
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]}-])[-−])?(?:\\?\$)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+)"
    r"(?:\s?/\s?\d+)?(?:\s?\\?%)?"
)
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z(*]|\s*$)|\n|\s+(?:because|since|as)\s")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}(?![A-Za-z({])")
_COMMAND = re.compile(r"\\[A-Za-z]+\*?(?:\s*\{[A-Za-z .']*\})?")
_NO_PROSE = {*FUNCTIONS, "sqrt", "pi", "or", "and", "mod", "infinity"}


def correct_result(gold: str) -> str:
    r"""The result in a correct answer: its last `\boxed{…}`, what follows `####`, or all of it."""
    inside = boxed(gold)
    if inside is not None:
        return inside
    marked = _HASHES.findall(gold)
    return str(marked[-1]) if marked else gold.strip()


def result(text: str) -> str | None:
    r"""The result that a generated text comes to; None if there is none.

    In this order: the content of the last `\boxed{…}`; the last line that begins with `####`; what
    follows the last "the answer is" or "answer:"; the text, if it is an expression as a whole; its
    last formula or number.
    """
    text = after_thoughts(text)
    inside = boxed(text)
    if inside is not None:
        return inside[: _LONGEST + 1] or None
    found = _hashed(text) or _marked(text) or _plain(text.strip())
    return found[: _LONGEST + 1] if found else None


def _hashed(text: str) -> str | None:
    """What follows the last `####`, unless it is a heading."""
    matches = list(_HASHES.finditer(text))
    if not matches:
        return None
    last = matches[-1]
    heading = text[last.end() :].strip() and re.search(r"[A-Za-z]", last[1])
    return None if heading else last[1]


def _marked(text: str) -> str | None:
    """What follows the last mark of an answer, up to the end of the sentence."""
    marks = list(_MARKED.finditer(text))
    if not marks:
        return None
    rest = text[marks[-1].end() :][: 2 * _LONGEST]
    formula = _FORMULA.match(rest)
    if formula:
        after = rest[formula.end() :]
        if not re.match(r"\s*(?:,|and|or)\s*(?:and|or)?\s*[$\\]", after):
            return _content(formula)
    end = _SENTENCE_END.search(rest)
    return _plain(rest[: end.start()] if end else rest)


def _plain(text: str) -> str | None:
    """The text, if it is an expression; otherwise, its last formula or number."""
    if not text:
        return None
    if len(text) <= _LONGEST_LINE and "\n" not in text and not _is_prose(text):
        return text
    tail = text[-4 * _LONGEST :]
    formulas, numbers = list(_FORMULA.finditer(tail)), list(_NUMBER.finditer(tail))
    if formulas and (not numbers or numbers[-1].end() <= formulas[-1].end()):
        return _content(formulas[-1])
    if numbers:
        return numbers[-1][0].strip()
    return text if len(text) <= _LONGEST_LINE else None


def _is_prose(text: str) -> bool:
    """Whether a text has several words outside commands and formulas."""
    words = _WORD.findall(_COMMAND.sub(" ", text))
    several = [word for word in words if word.lower() not in _NO_PROSE]
    return len(several) > 1 or bool(several and _FORMULA.search(text))


def _content(formula: re.Match[str]) -> str:
    return next(part for part in formula.groupdict().values() if part is not None).strip()
