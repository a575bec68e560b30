"""The relay: one agent reads a passage, and another answers a question about it.

The answerer sees the question and the reader's message, never the passage. Passages hold random
facts about random people, so only the message can carry the answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["KINDS", "PEOPLE", "correct", "make_rows", "split_rows"]

Row = dict[str, Any]

PEOPLE = (
    *("Ann", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ida", "Jack", "Karl"),
    *("Laura", "Max", "Nina", "Oscar", "Paul", "Rosa", "Sam", "Tom", "Vera"),
)
KINDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "job": (
        "{name} is a {value}.",
        "What is the job of {name}?",
        ("lawyer", "doctor", "farmer", "teacher", "baker", "pilot", "nurse", "painter", "judge"),
    ),
    "city": (
        "{name} lives in {value}.",
        "In which city does {name} live?",
        ("Vienna", "Paris", "Rome", "Berlin", "London", "Madrid", "Tokyo", "Cairo", "Oslo"),
    ),
    "pet": (
        "{name} owns a {value}.",
        "Which animal does {name} own?",
        ("cat", "dog", "horse", "rabbit", "parrot", "snake", "turtle", "goat", "fish"),
    ),
    "food": (
        "{name} likes {value}.",
        "Which food does {name} like?",
        ("pizza", "soup", "rice", "bread", "cheese", "cake", "salad", "pasta", "fruit"),
    ),
}
"""Kind of a fact → its sentence, the question about it, and its values."""


def make_rows(count: int, *, seed: int, facts: int = 2) -> list[Row]:
    """Rows with a passage, a question about one of its facts, and the answer.

    Args:
        count: number of rows.
        seed: random seed; equal seeds make equal rows.
        facts: number of facts in a passage, each about a different person.
    """
    draw = random.Random(seed)
    return [_row(draw, facts) for _ in range(count)]


def split_rows(
    train: int, heldout: int, *, seed: int, facts: int = 2
) -> tuple[list[Row], list[Row]]:
    """Training rows, and held-out rows whose passages do not occur in training."""
    draw = random.Random(seed)
    learnt = [_row(draw, facts) for _ in range(train)]
    seen = {row["passage"] for row in learnt}
    others: list[Row] = []
    while len(others) < heldout:
        row = _row(draw, facts)
        if row["passage"] not in seen:
            seen.add(row["passage"])
            others.append(row)
    return learnt, others


def _row(draw: random.Random, facts: int) -> Row:
    told = []
    for name in draw.sample(PEOPLE, facts):
        sentence, question, values = KINDS[draw.choice(list(KINDS))]
        value = draw.choice(values)
        told.append((sentence.format(name=name, value=value), question.format(name=name), value))
    _, question, answer = draw.choice(told)
    return {
        "passage": " ".join(sentence for sentence, _, _ in told),
        "question": question,
        "answer": answer,
    }


def correct(text: str, row: Mapping[str, Any]) -> bool:
    """Whether the first value in a text is the answer.

    Only the first value counts because a text that repeats the whole passage contains the answer.
    """
    found = _VALUES.search(text)
    return found is not None and found.group().lower() == row["answer"].lower()


_VALUES = re.compile(
    rf"\b({'|'.join(value for _, _, values in KINDS.values() for value in values)})\b",
    re.IGNORECASE,
)
