"""LiveCodeBench: problems of programming contests, by date."""

from __future__ import annotations

import json
from typing import Any

from latentmas.errors import DataError
from latentmas.evaluation.benchmarks import Benchmark, Row, benchmarks

__all__ = ["livecodebench"]

_MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *("statistics", "itertools", "functools", "operator", "io", "sys", "json"),
)
# The published checker lets programs use these names without importing them. The built-in names
# come last, so that `open`, `pow` and `sum` are the usual ones.
_PRELUDE = "\n".join(
    [f"from {name} import *" for name in (*_MODULES, "builtins", "typing")]
    + [f"import {', '.join(_MODULES)}", "sys.setrecursionlimit(50000)"]
)
_FUNCTION = (
    "Use the following starter code to write the solution, and put it in one ```python block:"
    "\n\n```python\n{starter}\n```"
)
_PROGRAM = (
    "Read the input from standard input, and write the answer to standard output. Put the program "
    "in one ```python block."
)


def _read(row: Row) -> dict[str, Any]:
    """A sample from a row of the data set, which has the same columns on the hub and in its files.

    The private test cases stay packed; the grader unpacks those of one row at a time.
    """
    starter = str(row["starter_code"] or "").rstrip()
    form = _FUNCTION.format(starter=starter) if starter else _PROGRAM
    tests = {
        "entry_point": _function_name(row["metadata"]) if starter else "",
        "prelude": _PRELUDE,
        "public_tests": row["public_test_cases"],
        "private_tests": row["private_test_cases"],
    }
    question = f"{str(row['question_content']).strip()}\n\n{form}"
    return {"question": question, "answer": str(row["public_test_cases"]), "tests": tests}


def _function_name(metadata: str) -> str:
    try:
        return str(json.loads(metadata)["func_name"])
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"`metadata` names no function (`func_name`): {metadata!r:.80}") from error


livecodebench = benchmarks.register("livecodebench")(
    Benchmark(
        name="livecodebench",
        title="LiveCodeBench, code generation",
        source="livecodebench/code_generation_lite",
        revision="0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
        split="test",
        read=_read,
        grader="code",
        grader_options={"seconds": 6.0, "total_seconds": 300.0, "memory_bytes": 2**32},
        licence="CC",
        citation="Jain et al. 2024 (arXiv 2403.07974)",
        columns=(
            *("question_content", "starter_code", "metadata"),
            *("public_test_cases", "private_test_cases"),
        ),
        options={"max_new_tokens": 4096, "do_sample": True, "temperature": 0.2, "top_p": 0.95},
        notes=(
            "1,055 problems in release 6. At this revision the data are test.jsonl and test2.jsonl "
            "to test6.jsonl beside a loading script, which recent versions of `datasets` do not "
            "run; read the files of the release that you mean. The answer holds the public test "
            "cases; graded are the private ones as well. Outputs are compared as the published "
            "checker does: lines as texts or decimal numbers, values of functions exactly."
        ),
    )
)
