"""The relay: one agent reads a passage, and another answers a question about it.

The answerer sees the question and the reader's message, never the passage. Passages hold random
facts about random people, so only the message can carry the answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = [
    "KINDS",
    "PEOPLE",
    "Fact",
    "Kinds",
    "correct",
    "first_value_is",
    "make_rows",
    "passage_row",
    "split_rows",
]

Row = dict[str, Any]
Kinds = Mapping[str, tuple[str, str, tuple[str, ...]]]
"""Kind of a fact → its sentence, the question about it, and its values."""


class Fact(NamedTuple):
    """A fact about a person, and the question about it."""

    sentence: str
    question: str
    value: str

    @classmethod
    def drawn(cls, draw: random.Random, kind: tuple[str, str, tuple[str, ...]], name: str) -> Fact:
        """A fact of a kind about a person, with a random value."""
        sentence, question, values = kind
        value = draw.choice(values)
        return cls(sentence.format(name=name, value=value), question.format(name=name), value)


PEOPLE = (
    *("Ann", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ida", "Jack", "Karl"),
    *("Laura", "Max", "Nina", "Oscar", "Paul", "Rosa", "Sam", "Tom", "Vera"),
)
KINDS: Kinds = {
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


def passage_row(facts: Iterable[Fact], asked: Fact) -> Row:
    """A row with a passage that states all facts, and a question about one of them."""
    return {
        "passage": " ".join(fact.sentence for fact in facts),
        "question": asked.question,
        "answer": asked.value,
    }


def first_value_is(answer: str, text: str, kinds: Kinds) -> bool:
    """Whether the first value of a fact in a text is the answer.

    Only the first value counts because a text that repeats the whole passage contains the answer.

    Args:
        answer: Correct answer.
        text: Generated text.
        kinds: Kinds of facts whose values are looked for.
    """
    values = "|".join(value for _, _, values in kinds.values() for value in values)
    found = re.search(rf"\b({values})\b", text, re.IGNORECASE)
    return found is not None and found.group().lower() == answer.lower()


def correct(text: str, row: Mapping[str, Any]) -> bool:
    """Whether the first value in a text is the answer of a row."""
    return first_value_is(row["answer"], text, KINDS)


def _row(draw: random.Random, facts: int) -> Row:
    people = draw.sample(PEOPLE, facts)
    told = [Fact.drawn(draw, KINDS[draw.choice(list(KINDS))], name) for name in people]
    return passage_row(told, draw.choice(told))
