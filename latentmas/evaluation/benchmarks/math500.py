"""MATH-500: competition problems, a part of the test split of MATH."""

from __future__ import annotations

from typing import Any

from latentmas.evaluation.benchmarks import Benchmark, Row, benchmarks
from latentmas.evaluation.benchmarks._forms import BOXED, SAMPLED

__all__ = ["MATH500"]


def read(row: Row) -> dict[str, Any]:
    """The problem, its result in LaTeX, and where it belongs."""
    sample = {"question": str(row["problem"]), "answer": str(row["answer"])}
    for name, wanted in (("id", "unique_id"), ("subject", "subject"), ("level", "level")):
        if row.get(wanted) is not None:
            sample[name] = row[wanted]
    return sample | ({"solution": row["solution"]} if row.get("solution") else {})


EXAMPLES = (
    {
        "question": "What is the sum of all positive divisors of $12$ that are even?",
        "answer": "The divisors of 12 are 1, 2, 3, 4, 6 and 12. The even ones are 2, 4, 6 and 12, "
        "and 2 + 4 + 6 + 12 = 24.\n\\boxed{24}",
    },
    {
        "question": "Solve $|2x - 3| < 5$. Give the answer as an interval.",
        "answer": "The inequality says -5 < 2x - 3 < 5, so -2 < 2x < 8 and -1 < x < 4.\n"
        "\\boxed{(-1,4)}",
    },
    {
        "question": "Two fair dice are rolled. What is the probability that the larger number "
        "shown is exactly 2?",
        "answer": "The larger number is 2 for (1,2), (2,1) and (2,2), which are 3 of 36 outcomes, "
        "so the probability is 3/36 = 1/12.\n\\boxed{\\frac{1}{12}}",
    },
)

MATH500 = benchmarks.register("math500")(
    Benchmark(
        name="math500",
        title="MATH-500",
        source="HuggingFaceH4/MATH-500",
        split="test",
        rows=500,
        revision="ff5b20257d8185524591543f8ff5993951537bb8",
        read=read,
        columns=("problem", "answer"),
        grader="math",
        options={**SAMPLED, "max_new_tokens": 2000},
        instruction=BOXED,
        examples=EXAMPLES,
        licence="MIT",
        citation="Hendrycks et al. 2021, arXiv 2103.03874; "
        "split of Lightman et al. 2023, arXiv 2305.20050",
        notes="The paper's code writes 1,000 tokens with its small models and 2,000 with the "
        "others. The examples were written for this package. Correct answers are LaTeX: intervals, "
        "matrices and expressions among them.",
    )
)
