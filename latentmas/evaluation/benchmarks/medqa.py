"""MedQA: multiple-choice questions of the United States medical licensing examination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentmas.evaluation.benchmarks import Benchmark, Row, benchmarks
from latentmas.evaluation.benchmarks._forms import CHOICE, SAMPLED, choice_sample, with_options

__all__ = ["MEDQA"]


def read(row: Row) -> dict[str, Any]:
    """A row of the Hub (options by letter), or of the file that LatentMAS published (a list)."""
    given = row["options"]
    if isinstance(given, Mapping):
        options = [str(given[letter]) for letter in sorted(given)]
    elif isinstance(given, list | tuple):
        options = [_without_letter(str(option)) for option in given]
    else:
        raise ValueError(f"the field 'options' is {type(given).__name__}, not a mapping or a list")
    right = _right(str(row["answer"]), options)
    own = {} if row.get("idx") is None else {"id": row["idx"]}
    return choice_sample(_bare(str(row["question"]), options), options, right) | own


def _without_letter(option: str) -> str:
    head, dot, text = option.partition(". ")
    return text if dot and len(head) == 1 and head.isupper() else option


def _right(answer: str, options: list[str]) -> int:
    """Index of the option that is the answer, letter for letter."""
    same = [i for i, option in enumerate(options) if option.strip() == answer.strip()]
    if len(same) != 1:
        raise ValueError(f"{len(same)} of the options are the answer, {answer!r:.80}")
    return same[0]


def _bare(question: str, options: list[str]) -> str:
    """The question without its options, which the file repeats at the end of each."""
    block = with_options("", options).strip()
    question = question.rstrip()
    while question.endswith(block):
        question = question.removesuffix(block).rstrip()
    return question


EXAMPLES = (
    {
        "question": with_options(
            "A 25-year-old woman has had fatigue and heavy menstrual bleeding for six months. Her "
            "hemoglobin is 9 g/dL, the mean corpuscular volume 70 μm3 and serum ferritin is low. "
            "Which of the following is the most likely cause of her anemia?",
            ["Folate deficiency", "Iron deficiency", "Hemolysis", "Vitamin B12 deficiency"],
        ),
        "answer": "A low mean corpuscular volume and a low ferritin indicate a lack of iron, which "
        "heavy bleeding explains: option B.\n\\boxed{B}",
    },
    {
        "question": with_options(
            "A 60-year-old man takes a drug for hypertension and develops a persistent dry cough. "
            "Which of the following drugs is most likely responsible?",
            ["Amlodipine", "Hydrochlorothiazide", "Metoprolol", "Lisinopril"],
        ),
        "answer": "Inhibitors of the angiotensin-converting enzyme raise bradykinin, which causes "
        "a dry cough; lisinopril is one: option D.\n\\boxed{D}",
    },
)

MEDQA = benchmarks.register("medqa")(
    Benchmark(
        name="medqa",
        title="MedQA (USMLE, four options)",
        source="GBaker/MedQA-USMLE-4-options",
        split="test",
        rows=1273,
        revision="0fb93dd23a7339b6dcd27e241cb9b5eca62d4d18",
        read=read,
        columns=("question", "options", "answer"),
        grader="choice",
        options={**SAMPLED, "max_new_tokens": 4000},
        instruction=CHOICE,
        examples=EXAMPLES,
        licence="MIT (MedQA); the card on the Hub says CC BY 4.0",
        citation="Jin et al. 2021, Applied Sciences 11(14), arXiv 2009.13081",
        notes="The paper uses a file of 300 rows, data/medqa.json of Gen-Verse/LatentMAS, which "
        "holds the options twice; give it as the path. Its answers are texts. The paper's code "
        "finds the letter of a text by substring and is wrong on three rows (an answer of "
        "Hemidesmosomes becomes A. Desmosomes); here the option must equal the text. The examples "
        "were written for this package.",
    )
)
