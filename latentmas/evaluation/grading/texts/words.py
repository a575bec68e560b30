"""Compare short answers by their words, as SQuAD does."""

from __future__ import annotations

import re
import string
from collections import Counter

from latentmas.evaluation.grading.texts.boxed import boxed, unwrapped
from latentmas.evaluation.grading.texts.thoughts import after_thoughts

__all__ = ["short_answer", "token_f1", "words"]

_ARTICLES = {"a", "an", "the"}
_QUOTES = "‘’“”«»…–—"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation + _QUOTES)
_FINAL = re.compile(r"\bfinal answer\b[*_\s]*(?:is\b|:)[*_:\s]*|\banswer\b[*_\s]*:[*_:\s]*", re.I)
_CLOSED = {"yes", "no", "noanswer"}
"""Answers of closed questions, which share no part with another answer."""


def words(text: str) -> list[str]:
    """Words of a text in lower case, without punctuation and articles."""
    plain = text.lower().translate(_NO_PUNCTUATION)
    return [word for word in plain.split() if word not in _ARTICLES]


def short_answer(text: str) -> str:
    r"""The answer that a text gives: its last `\boxed{…}`, what follows "answer:", or all of it."""
    text = after_thoughts(text)
    inside = boxed(text)
    if inside is not None:
        return unwrapped(inside)
    marks = list(_FINAL.finditer(text))
    rest = text[marks[-1].end() :] if marks else text
    return (rest.strip().partition("\n")[0] if marks else rest).strip().strip("*").strip()


def token_f1(one: list[str], other: list[str]) -> float:
    """Harmonic mean of precision and recall of words, 0 to 1.

    If either is a closed answer, such as "yes", both have to be equal, as in HotpotQA.
    """
    if (len(one) == 1 and one[0] in _CLOSED) or (len(other) == 1 and other[0] in _CLOSED):
        return float(one == other)
    common = sum((Counter(one) & Counter(other)).values())
    return 2 * common / (len(one) + len(other)) if common else 0.0
