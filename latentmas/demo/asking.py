"""Asking back: a task that one round cannot do, for a reader that does not know the question.

The reader sees six facts about one person and sends about one fact's worth of latents. The answerer
alone sees the question; what it sends of one round reaches the reader in the next.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import latentmas as lm
from latentmas.demo.relay import KINDS, PEOPLE, Fact, Kinds, first_value_is, passage_row

__all__ = ["ANSWERER", "FACTS", "asking_team", "correct", "make_rows"]

Row = dict[str, Any]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FACTS: Kinds = {
    "city": KINDS["city"],
    "pet": KINDS["pet"],
    "color": (
        "{name}'s favorite color is {value}.",
        "What is {name}'s favorite color?",
        _words("red blue green yellow white black pink brown grey"),
    ),
    "month": (
        "{name} was born in {value}.",
        "When was {name} born?",
        _words("January March April May June July August October December"),
    ),
    "subject": (
        "{name} studies {value}.",
        "What does {name} study?",
        _words("physics history biology law medicine art music chemistry geography"),
    ),
    "age": (
        "{name} is {value} years old.",
        "How old is {name}?",
        _words("23 27 31 34 38 42 46 53 61"),
    ),
}
"""Kind of a fact → its sentence, the question about it, and its nine values. SmolLM2 finds these
six kinds in a passage in most cases; jobs, foods, drinks, sports and instruments less often."""
READER = "{% if feedback %}{{ feedback }}{% else %}Repeat the facts.{% endif %}"
ANSWERER = "{{ note }}\nRepeat: {{ question }}"


def make_rows(count: int, draw: random.Random, facts: int) -> Iterator[Row]:
    """Rows about one person each.

    Args:
        count: Number of rows.
        draw: equal states make equal rows.
        facts: in a passage, at most one of a kind: 1 to 6.

    Yields:
        `passage`; `question` about one of its facts, `note`; `answer`, a value; `reply`, the
        question and the answer, which is what training asks for.
    """
    for _ in range(count):
        name, kinds = draw.choice(PEOPLE), draw.sample(list(FACTS), facts)
        told = [Fact.drawn(draw, FACTS[kind], name) for kind in kinds]
        asked = told[draw.randrange(facts)]
        reply = f"{asked.question} {asked.value}"
        yield passage_row(told, asked) | {"reply": reply, "note": asked.sentence}


def correct(text: str, row: Row) -> bool:
    """Whether the first value in a text is the answer of a row."""
    return first_value_is(row["answer"], text, FACTS)


def asking_team(
    backbone: lm.Backbone,
    *,
    latent_steps: int = 8,
    asks: int = 5,
    max_new_tokens: int = 16,
    apart: bool = False,
) -> lm.Graph:
    """Reader and answerer, a message forward and a feedback edge, all through the vocabulary.

    Args:
        backbone: Backbone of all agents.
        latent_steps: K of the reader: about one fact.
        asks: K of who asks back: most of a question, and seldom a guess at the answer.
        max_new_tokens: Maximum number of tokens of the answer.
        apart: a third agent, the asker, with the answerer's prompt, asks back in its place. Its
            link may then learn to restate the question, while the answerer's stays as it is.
    """
    graph = lm.Graph("asking", inputs=["passage", "question"], rounds=3, latent_steps=latent_steps)
    graph.add_agent("reader", backbone, system="{{ passage }}", prompt=READER, inner="soft_token")
    for name in ("asker", "answerer") if apart else ("answerer",):
        graph.add_agent(
            name,
            backbone,
            system="Quiz.",
            prompt=ANSWERER,
            inner="soft_token",
            latent_steps=asks,
            max_new_tokens=max_new_tokens,
        )
        residual = name == "asker" or not apart
        graph.connect("reader", f"{name}.note", link="soft_token", residual=residual)
    asker = "asker" if apart else "answerer"
    graph.feedback(asker, "reader.feedback", link="soft_token", residual=True)
    return graph.output("answerer")
