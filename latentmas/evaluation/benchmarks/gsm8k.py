"""GSM8K: word problems of primary school."""

from __future__ import annotations

import re
from typing import Any

from latentmas.evaluation.benchmarks import Benchmark, Row, benchmarks
from latentmas.evaluation.benchmarks._forms import BOXED, SAMPLED

__all__ = ["GSM8K"]

_CALCULATOR = re.compile(r"<<[^<>]*>>")


def read(row: Row) -> dict[str, Any]:
    """The number after `####`, and the solution before it without its calculator notes."""
    solution, mark, result = str(row["answer"]).rpartition("####")
    if not mark or not result.strip():
        raise ValueError("the field 'answer' does not end in '#### NUMBER'")
    return {
        "question": str(row["question"]),
        "answer": result.strip(),
        "solution": _CALCULATOR.sub("", solution).strip(),
    }


EXAMPLES = (
    {
        "question": "Natalia sold clips to 48 of her friends in April, and then she sold half as "
        "many clips in May. How many clips did Natalia sell altogether in April and May?",
        "answer": "Natalia sold 48/2 = 24 clips in May.\nNatalia sold 48+24 = 72 clips altogether "
        "in April and May.\n\\boxed{72}",
    },
    {
        "question": "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of "
        "babysitting. How much did she earn?",
        "answer": "Weng earns 12/60 = $0.2 per minute.\nWorking 50 minutes, she earned 0.2 x 50 = "
        "$10.\n\\boxed{10}",
    },
    {
        "question": "Betty is saving money for a new wallet which costs $100. Betty has only half "
        "of the money she needs. Her parents decided to give her $15 for that purpose, and her "
        "grandparents twice as much as her parents. How much more money does Betty need to buy the "
        "wallet?",
        "answer": "In the beginning, Betty has only 100 / 2 = $50.\nBetty's grandparents gave her "
        "15 * 2 = $30.\nThis means, Betty needs 100 - 50 - 30 - 15 = $5 more.\n\\boxed{5}",
    },
    {
        "question": "James writes a 3-page letter to 2 different friends twice a week. How many "
        "pages does he write a year?",
        "answer": "He writes each friend 3*2=6 pages a week.\nSo he writes 6*2=12 pages every "
        "week.\nThat means he writes 12*52=624 pages a year.\n\\boxed{624}",
    },
)

GSM8K = benchmarks.register("gsm8k")(
    Benchmark(
        name="gsm8k",
        title="GSM8K",
        source="openai/gsm8k",
        config="main",
        split="test",
        rows=1319,
        revision="cc7b047b6e5bb11b4f1af84efc572db110a51b3c",
        read=read,
        columns=("question", "answer"),
        grader="math",
        options={**SAMPLED, "max_new_tokens": 1000},
        instruction=BOXED,
        examples=EXAMPLES,
        licence="MIT",
        citation="Cobbe et al. 2021, arXiv 2110.14168",
        notes="It is not among the paper's benchmarks; the settings are those of MATH-500 with "
        "small models. The examples are rows 0, 1, 2 and 4 of its train split, without calculator "
        r"notes and with the result in \boxed{}.",
    )
)
