"""What the AIME of all years share."""

from __future__ import annotations

from typing import Any

from latentmas.evaluation.benchmarks import Row
from latentmas.evaluation.benchmarks._forms import BOXED, SAMPLED

__all__ = ["SHARED", "sample_of"]


def sample_of(row: Row) -> dict[str, Any]:
    """The problem and its result, an integer from 0 to 999."""
    answer = str(row["answer"]).strip()
    if not (answer.isdecimal() and int(answer) <= 999):
        raise ValueError(f"the field 'answer' is {answer!r:.60}, not an integer from 0 to 999")
    own = {} if row.get("id") is None else {"id": row["id"]}
    return {"question": str(row["problem"]), "answer": str(int(answer)), **own}


EXAMPLES = (
    {
        "question": "Find the number of ordered pairs $(a,b)$ of positive integers with "
        "$a + b = 20$ such that $a$ and $b$ have no common factor greater than $1$.",
        "answer": "A common factor of a and b divides 20, and gcd(a, 20 - a) = gcd(a, 20). So the "
        "pairs are counted by the a below 20 that are coprime to 20, which are "
        "20(1 - 1/2)(1 - 1/5) = 8.\n\\boxed{8}",
    },
    {
        "question": "Let $f(n)$ be the sum of the digits of $n$ in base $3$. Find the sum of "
        "$f(n)$ over all $n$ from $0$ to $80$.",
        "answer": "The numbers from 0 to 80 are all words of four digits in base 3. Each of the 4 "
        "places holds each of 0, 1 and 2 in 27 words, so the sum is 4 * 27 * (0 + 1 + 2) = 324.\n"
        "\\boxed{324}",
    },
)

SHARED: dict[str, Any] = {
    "split": "test",
    "rows": 30,
    "columns": ("problem", "answer"),
    "grader": "math",
    "options": {**SAMPLED, "max_new_tokens": 16000, "num_return_sequences": 10},
    "instruction": BOXED,
    "examples": EXAMPLES,
    "licence": "problems © Mathematical Association of America; see the data set's page",
}
"""Fields of the benchmarks."""
