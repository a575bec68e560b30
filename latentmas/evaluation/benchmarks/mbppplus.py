"""MBPP+: short programming tasks with many more tests than MBPP has."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from latentmas.errors import DataError
from latentmas.evaluation.benchmarks import Benchmark, Row, benchmarks
from latentmas.evaluation.benchmarks._evalplus import restored, scripted
from latentmas.evaluation.graders.code import encode_values

__all__ = ["MBPPPLUS"]

_SHOWN = 3
"""Tests that the question shows."""
_ASSERT = re.compile(r"^assert .*$", re.MULTILINE)
# EvalPlus compares the outputs of these functions in a way of its own.
_COMPARED: Mapping[str, str] = {
    **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), "none"),
    **dict.fromkeys(
        (
            *("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly"),
            *("larg_nnum", "intersection_array", "find_dissimilar", "Diff"),
        ),
        "set",
    ),
}


def read(row: Row) -> dict[str, Any]:
    """A sample from a row of the hub (`code`, `test`, `test_list`) or of EvalPlus's release."""
    number = int(str(row["task_id"]).rpartition("/")[2])
    if "test" in row:
        solution, shown = str(row["code"]), list(row["test_list"])
        description = str(row["prompt"]).strip()
        entry_point = _entry_point(str(row["test"]))
        inputs, _, atol = scripted(str(row["test"]))
    else:
        solution, entry_point = str(row["canonical_solution"]), str(row["entry_point"])
        description, shown = _described(str(row["prompt"]), str(row["assertion"]))
        inputs = restored(number, [*(row["base_input"] or ()), *(row["plus_input"] or ())])
        atol = float(row["atol"])
    tests: dict[str, Any] = {
        "entry_point": entry_point,
        "inputs": encode_values(inputs),
        "atol": atol,
        "compare": _COMPARED.get(entry_point, "equal"),
    }
    if entry_point in _ALSO:
        tests["also"] = encode_values([_ALSO[entry_point](*arguments) for arguments in inputs])
    question = _question(description, shown)
    return {"id": f"Mbpp/{number}", "question": question, "answer": solution, "tests": tests}


def _question(description: str, shown: list[str]) -> str:
    """The question as the published systems were asked it."""
    lines = "\n".join(shown[:_SHOWN])
    return f"{description}\n\nYour solution should satisfy assertions like:\n{lines}"


def _described(prompt: str, assertion: str) -> tuple[str, list[str]]:
    """Description of a task and its first tests, the prompt's own before the others."""
    text = prompt.strip().strip('"').strip()
    own, more = _ASSERT.findall(text), _ASSERT.findall(assertion)
    return _ASSERT.sub("", text).strip(), [*own, *more[len(own) :]]


def _entry_point(script: str) -> str:
    """Name of the function that a test script calls with `*inp` as its arguments."""
    for node in ast.walk(ast.parse(script)):
        match node:
            case ast.Call(
                func=ast.Name(id="assertion"), args=[ast.Call(func=ast.Name(id=name)), *_]
            ):
                return name
    raise DataError("the test script calls no function")


def _surface_area(base: float, height: float) -> int:
    """Surface of a square pyramid, where the second argument is its height, not its slant."""
    return round(base**2 + 2 * base * math.sqrt((base / 2) ** 2 + height**2))


def _digit_distance(one: int, other: int) -> int:
    """Sum of the differences of digits, the shorter number filled with zeros."""
    width = max(len(str(one)), len(str(other)))
    pairs = zip(str(one).zfill(width), str(other).zfill(width), strict=True)
    return sum(abs(int(a) - int(b)) for a, b in pairs)


_ALSO: Mapping[str, Callable[..., Any]] = {
    "digit_distance_nums": _digit_distance,
    "surface_Area": _surface_area,
}
"""Second reading of a task that EvalPlus accepts, by the function's name."""

MBPPPLUS = benchmarks.register("mbppplus")(
    Benchmark(
        name="mbppplus",
        title="MBPP+",
        source="evalplus/mbppplus",
        revision="b2d74c91837c3f2a20c1299ae98133cbe7cfa077",
        split="test",
        rows=378,
        read=read,
        grader="code",
        licence="Apache-2.0",
        citation="Liu et al. 2023 (arXiv 2305.01210); MBPP: Austin et al. 2021 (arXiv 2108.07732)",
        columns=("task_id", "prompt", ("code", "canonical_solution"), ("test", "base_input")),
        options={"max_new_tokens": 4000, "do_sample": True, "temperature": 0.2, "top_p": 0.95},
        instruction="Put the complete solution in one ```python block.",
        notes=(
            "378 tasks. Expected outputs are those of the correct solution, compared by EvalPlus's "
            "rules. Files of EvalPlus's releases (MbppPlus.jsonl) are read as well; their inputs "
            "are JSON, and get back the tuples, sets and complex numbers that JSON does not have. "
            "A test of Mbpp/255 is not used: its output is 1.7 million tuples of 77 texts."
        ),
    )
)
