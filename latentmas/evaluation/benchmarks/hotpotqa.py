"""HotpotQA: questions that take facts from two articles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentmas.evaluation.benchmarks import Benchmark, Row, benchmarks
from latentmas.evaluation.benchmarks._forms import SAMPLED, SHORT

__all__ = ["HOTPOTQA"]


def read(row: Row) -> dict[str, Any]:
    """The question and its answer; the articles, if the row has them, as the field `context`."""
    answer = row["answer"]
    sample = {
        "question": str(row["question"]),
        "answer": list(answer) if isinstance(answer, list | tuple) else str(answer),
    }
    if row.get("context"):
        sample["context"] = _articles(row["context"])
    return sample | {k: row[k] for k in ("id", "type", "level") if row.get(k) is not None}


def _articles(context: Any) -> str:
    """Articles as text, from the Hub's form (titles, sentences) or the original one (pairs)."""
    if isinstance(context, Mapping):
        pairs = list(zip(context["title"], context["sentences"], strict=True))
    else:
        pairs = [(title, sentences) for title, sentences in context]
    return "\n\n".join(
        f"[{number}] {title}\n" + " ".join(str(one).strip() for one in sentences)
        for number, (title, sentences) in enumerate(pairs, start=1)
    )


EXAMPLES = (
    {
        "question": "In which country was the composer of the opera Carmen born?",
        "answer": "Carmen was composed by Georges Bizet, who was born in Paris, in France.\n"
        "\\boxed{France}",
    },
    {
        "question": "Which is longer, the Danube or the Rhine?",
        "answer": "The Danube is about 2,850 km long, the Rhine about 1,230 km.\n"
        "\\boxed{the Danube}",
    },
)

HOTPOTQA = benchmarks.register("hotpotqa")(
    Benchmark(
        name="hotpotqa",
        title="HotpotQA",
        source="hotpotqa/hotpot_qa",
        config="distractor",
        split="validation",
        rows=7405,
        revision="1908d6afbbead072334abe2965f91bd2709910ab",
        read=read,
        columns=("question", "answer"),
        grader="em",
        options={**SAMPLED, "max_new_tokens": 4000},
        instruction=SHORT,
        examples=EXAMPLES,
        licence="CC BY-SA 4.0",
        citation="Yang et al. 2018, EMNLP, arXiv 1809.09600",
        notes="The paper asks the question alone and lets its team search; the ten articles of a "
        "row are in the field `context`, for a graph with such an input. Files with questions "
        "only, and with lists of answers, are read as well. `f1` and `contains` are more lenient "
        "graders. The examples were written for this package.",
    )
)
