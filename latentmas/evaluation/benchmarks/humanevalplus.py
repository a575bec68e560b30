"""HumanEval+: functions to complete, with many more tests than HumanEval has."""

from __future__ import annotations

from typing import Any

from latentmas.evaluation.benchmarks import Benchmark, Row, benchmarks
from latentmas.evaluation.benchmarks._evalplus import scripted
from latentmas.evaluation.graders.code import encode_values

__all__ = ["HUMANEVALPLUS"]

_ROOT = "find_zero"
"""Any root of a polynomial is right."""
_ROOT_TOLERANCE = 1e-4


def read(row: Row) -> dict[str, Any]:
    """A sample from a row of the hub (with `test`) or of EvalPlus's release."""
    prompt, entry_point = str(row["prompt"]), str(row["entry_point"])
    if "test" in row:
        inputs, _, atol = scripted(str(row["test"]))
    else:
        inputs = [*(row["base_input"] or ()), *(row["plus_input"] or ())]
        atol = float(row["atol"])
    root = entry_point == _ROOT
    tests = {
        "entry_point": entry_point,
        "inputs": encode_values(inputs),
        "atol": (atol or _ROOT_TOLERANCE) if root else atol,
        "compare": "root" if root else "equal",
        "prompt": prompt,
    }
    question = f"Complete this Python function:\n\n```python\n{prompt.strip()}\n```"
    solution = prompt + str(row["canonical_solution"])
    return {"id": str(row["task_id"]), "question": question, "answer": solution, "tests": tests}


HUMANEVALPLUS = benchmarks.register("humanevalplus")(
    Benchmark(
        name="humanevalplus",
        title="HumanEval+",
        source="evalplus/humanevalplus",
        revision="d32357cf319e50e9c8d8dab5ea876c72b0fd321b",
        split="test",
        rows=164,
        read=read,
        grader="code",
        licence="Apache-2.0",
        citation="Liu et al. 2023 (arXiv 2305.01210); Chen et al. 2021 (arXiv 2107.03374)",
        columns=("task_id", "prompt", "canonical_solution", "entry_point", ("test", "base_input")),
        options={"max_new_tokens": 4000},
        instruction="Put the complete function in one ```python block.",
        notes=(
            "164 tasks. Expected outputs are those of the correct solution, compared by EvalPlus's "
            "rules. Files of EvalPlus's releases (HumanEvalPlus.jsonl and smaller variants) are "
            "read as well. A text that continues the prompt counts as a solution."
        ),
    )
)
