"""GPQA-Diamond: multiple-choice questions of graduates in biology, physics and chemistry."""

from __future__ import annotations

import hashlib
from typing import Any

from latentmas.evaluation.benchmarks import Benchmark, Row, benchmarks
from latentmas.evaluation.benchmarks._forms import CHOICE, SAMPLED, choice_sample, with_options

__all__ = ["GPQA_DIAMOND"]

_RIGHT = "Correct Answer"
_WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def read(row: Row) -> dict[str, Any]:
    """The question with its four options, in an order that depends on nothing but the question."""
    question = str(row["Question"]).strip()
    options = [str(row[name]).strip() for name in (_RIGHT, *_WRONG)]
    order = sorted(range(4), key=lambda place: _rank(question, options[place], place))
    sample = choice_sample(question, [options[i] for i in order], order.index(0))
    for name, column in (("id", "Record ID"), ("subject", "High-level domain")):
        if row.get(column):
            sample[name] = row[column]
    return sample


def _rank(question: str, option: str, place: int) -> str:
    """Place of an option: a digest, so that every version and machine shuffles alike."""
    return hashlib.sha256(f"{question}\0{option}\0{place}".encode()).hexdigest()


EXAMPLES = (
    {
        "question": with_options(
            "A gas at constant volume is heated from 300 K to 600 K. By which factor does the "
            "root-mean-square speed of its molecules grow?",
            ["2", "√2", "4", "1"],
        ),
        "answer": "The mean kinetic energy is proportional to the temperature, so the speed grows "
        "with its square root: √(600/300) = √2, which is option B.\n\\boxed{B}",
    },
    {
        "question": with_options(
            "Two parents are carriers of the same recessive disorder. What is the probability that "
            "a healthy child of theirs is a carrier?",
            ["1/4", "1/2", "2/3", "3/4"],
        ),
        "answer": "Four cases are equally likely: one is affected, two are carriers and one is "
        "neither. Among the three healthy ones two are carriers: 2/3, which is option C.\n"
        "\\boxed{C}",
    },
)

GPQA_DIAMOND = benchmarks.register("gpqa_diamond")(
    Benchmark(
        name="gpqa_diamond",
        title="GPQA-Diamond",
        source="Idavidrein/gpqa",
        config="gpqa_diamond",
        split="train",
        rows=198,
        revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        gated=True,
        read=read,
        columns=("Question", _RIGHT, *_WRONG),
        grader="choice",
        options={**SAMPLED, "max_new_tokens": 4000},
        instruction=CHOICE,
        examples=EXAMPLES,
        licence="CC BY 4.0",
        citation="Rein et al. 2023, arXiv 2311.12022",
        notes="The data set is gated, and its authors ask not to publish examples in plain text. "
        "The order of the options follows from a digest of the question and each option, so it is "
        "the same in every run; in the paper's code it changes with the seed of the run. The "
        "examples were written for this package.",
    )
)
