r"""Measure the grader `math` on MATH-500 and GSM8K: what it accepts, what it refuses, how fast.

    python benchmarks/graders.py [--data FOLDER] [--json] [--out FILE] [--tiny]

The folder, `LATENTMAS_DATA` by default, holds `math500_full.jsonl` (a field `answer`) and
`gsm8k_test.jsonl` (`answer`, which ends in `#### n`). Without them, or with `--tiny`, a few rows
that are written here are graded. The exit code is 1 if fewer than 98 % of the equal answers are
accepted, or a wrong number of GSM8K is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from math_answers import alike, rewrites

from latentmas.evaluation import Grader, open_grader

FORMS = ("\\boxed{%s}", "So we get $\\boxed{%s}$.", "The answer is $%s$.", "%s")
"""How a model writes its answer; the forms take turns over the rewrites."""
TINY_MATH = (
    "\\frac{1}{2}",
    "2k+2",
    "\\text{east}",
    "90^\\circ",
    "3\\sqrt{13}",
    "1,-2",
    "(3,4]",
    "12",
)
TINY_GSM8K = tuple(f"{n} + 1 = <<{n}+1={n + 1}>>{n + 1}\n#### {n + 1:,}" for n in (17, 71, 1233))
REFUSED = (
    *(("\\frac{1}{2}", "\\frac{3}{4}"), ("3\\sqrt{13}", "3"), ("-1", "-1.9"), ("x^2+2x", "y^2")),
    *(("6-5i", "6"), ("2k+2", "2"), ("\\frac{3}{56}", "0"), ("52_8", "52"), ("(3,4]", "[3,4]")),
    *(("(1,2)", "\\{1,2\\}"), ("1\\frac{4}{5}", "\\frac{14}{5}")),
)
"""Pairs that published graders took for equal."""


@dataclass
class Tally:
    """Grades of one kind."""

    grades: int = 0
    accepted: int = 0
    seconds: float = 0.0
    by_rule: dict[str, list[int]] = field(default_factory=dict)
    """Rule → numbers of accepted texts and of texts."""
    odd: list[list[str]] = field(default_factory=list)
    """Correct answer, text and reason of grades that are not as expected."""
    reasons: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        each = 1000 * self.seconds / max(1, self.grades)
        return {
            "grades": self.grades,
            "accepted": self.accepted,
            "accepted_share": round(self.accepted / max(1, self.grades), 4),
            "seconds_per_1000": round(each, 3),
            "reasons": dict(self.reasons),
            "by_rule": {rule: {"accepted": a, "of": n} for rule, (a, n) in self.by_rule.items()},
            "unexpected": self.odd,
        }


def graded(judge: Grader, cases: Iterable[tuple[str, str, str]], expected: bool) -> Tally:
    """Grade cases of (rule, correct answer, text), all of them right or all wrong."""
    tally, begun = Tally(), time.perf_counter()
    for rule, gold, text in cases:
        found = judge.grade(text, gold, {})
        counts = tally.by_rule.setdefault(rule, [0, 0])
        counts[0] += found.right
        counts[1] += 1
        tally.grades += 1
        tally.accepted += found.right
        tally.reasons[found.reason] += 1
        if found.right != expected:
            tally.odd.append([gold, text, found.reason])
    tally.seconds = time.perf_counter() - begun
    return tally


def equal_cases(answers: list[str]) -> list[tuple[str, str, str]]:
    """Every rewrite of every answer, in one of the forms."""
    pairs = [(rule, answer, text) for answer in answers for rule, text in rewrites(answer)]
    return [
        (rule, answer, FORMS[i % 4] % text if rule != "wrapped" else f"\\boxed{{{text}}}")
        for i, (rule, answer, text) in enumerate(pairs)
    ]


def other_cases(answers: list[str], each: int) -> list[tuple[str, str, str]]:
    """Each answer with those of other problems, drawn at random."""
    generator, distinct = random.Random(0), sorted(set(answers))
    return [
        ("another problem's", answer, f"\\boxed{{{other}}}")
        for answer in distinct
        for other in generator.sample(distinct, min(each, len(distinct)))
        if other != answer
    ]


def gsm8k_cases(golds: list[str]) -> dict[str, list[tuple[str, str, str]]]:
    """Raw rows against their own solutions, against a sentence, and against wrong numbers."""
    numbers = [int(gold.rpartition("####")[2].replace(",", "")) for gold in golds]
    pairs = list(zip(golds, numbers, strict=True))
    return {
        "GSM8K, own solutions": [("solution", gold, gold) for gold in golds],
        "GSM8K, the answer is N.": [("sentence", gold, f"The answer is {n}.") for gold, n in pairs],
        "GSM8K, wrong numbers": [
            ("wrong", gold, text % wrong)
            for gold, n in pairs
            for wrong in (n + 1, n * 10, -n if n else 1)
            for text in ("The answer is %s.", "#### %s")
        ],
    }


def answers_of(folder: Path | None, name: str, tiny: tuple[str, ...]) -> list[str]:
    """The correct answers of a file; a few written here without a folder."""
    if folder is None:
        return list(tiny)
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["answer"] for line in lines if line.strip()]


def measure(folder: Path | None) -> dict[str, dict[str, Any]]:
    """All tallies by name."""
    answers = answers_of(folder, "math500_full.jsonl", TINY_MATH)
    golds = answers_of(folder, "gsm8k_test.jsonl", TINY_GSM8K)
    near = [(rule, a, f"\\boxed{{{text}}}") for a in answers for rule, text in alike(a)]
    known = [("known", gold, f"\\boxed{{{text}}}") for gold, text in REFUSED]
    with open_grader("math") as judge:
        judge.gold_problem("x+1", {})  # starts a process, which is not timed
        unread = [a for a in [*answers, *golds] if judge.gold_problem(a, {})]
        found = {
            "MATH-500, equal": graded(judge, equal_cases(answers), True),
            "MATH-500, alike but unequal": graded(judge, near, False),
            "MATH-500, other problems": graded(judge, other_cases(answers, 20), False),
            "known false positives": graded(judge, known, False),
        }
        for name, cases in gsm8k_cases(golds).items():
            found[name] = graded(judge, cases, "wrong" not in name)
    return {"unreadable correct answers": {"count": len(unread), "answers": unread}} | {
        name: tally.to_dict() for name, tally in found.items()
    }


def main() -> int:
    """Print a line for each kind of case, or one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("LATENTMAS_DATA"), help="folder of data")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--out", type=Path, help="file for the JSON object")
    parser.add_argument("--tiny", action="store_true", help="a few rows, written here")
    given = parser.parse_args()
    folder = Path(given.data) if given.data and not given.tiny else None
    found = measure(folder)
    told = json.dumps(found, indent=1, ensure_ascii=False)
    if given.out:
        given.out.write_text(told + "\n", encoding="utf-8")
    if given.json:
        print(told)
    else:
        for name, facts in found.items():
            if "grades" in facts:
                share = f"{facts['accepted']:>6} of {facts['grades']:>6} accepted"
                print(f"{name:<30}{share}{facts['seconds_per_1000']:>9.2f} s per 1000")
    enough = found["MATH-500, equal"]["accepted_share"] >= 0.98
    return 0 if enough and not found["GSM8K, wrong numbers"]["accepted"] else 1


if __name__ == "__main__":
    sys.exit(main())
