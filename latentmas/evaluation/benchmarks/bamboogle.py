"""Bamboogle: two-step questions that a search engine does not answer at once."""

from __future__ import annotations

from typing import Any

from latentmas.evaluation.benchmarks import Benchmark, Row, benchmarks
from latentmas.evaluation.benchmarks._forms import SAMPLED, SHORT

__all__ = ["BAMBOOGLE"]


def read(row: Row) -> dict[str, Any]:
    """The question and its answer: a text, or a list of texts any of which is correct."""
    question = row["Question"] if "Question" in row else row["question"]
    answer = row["Answer"] if "Answer" in row else row["answer"]
    right = list(answer) if isinstance(answer, list | tuple) else str(answer)
    return {"question": str(question), "answer": right}


EXAMPLES = (
    {
        "question": "Who was the monarch of Great Britain when the author of Pride and Prejudice "
        "was born?",
        "answer": "Pride and Prejudice is by Jane Austen, who was born in 1775, in the reign of "
        "George III.\n\\boxed{George III}",
    },
    {
        "question": "What is the capital of the country in which Mount Kilimanjaro stands?",
        "answer": "Mount Kilimanjaro stands in Tanzania, whose capital is Dodoma.\n\\boxed{Dodoma}",
    },
)

BAMBOOGLE = benchmarks.register("bamboogle")(
    Benchmark(
        name="bamboogle",
        title="Bamboogle",
        source="chiayewken/bamboogle",
        split="test",
        rows=125,
        revision="5787baaae24a33baee4cf57a4cc743e8a02cd548",
        read=read,
        columns=(("Question", "question"), ("Answer", "answer")),
        grader="em",
        options={**SAMPLED, "max_new_tokens": 4000},
        instruction=SHORT,
        examples=EXAMPLES,
        licence="MIT",
        citation="Press et al. 2023, Findings of EMNLP, arXiv 2210.03350",
        notes="Files with a list of answers are read as well. Some answers change with time or "
        "are written in several ways; `f1` and `contains` are more lenient graders. The examples "
        "were written for this package.",
    )
)
