"""Whether the grader `code` lets right programs pass, and nothing else.

    python benchmarks/code_grading.py DATA [--tiny] [--output results/code_grading.json]

DATA is a folder with EvalPlus's releases, `MbppPlus.jsonl.gz` and `HumanEvalPlus-Mini.jsonl.gz`.
Four questions: do all correct solutions pass (HumanEval+ as whole functions, and as texts that
continue the prompt); do wrong ones fail (solutions with one change, made by hand so that the result
is wrong); do programs that try to forge a pass fail; and how long does it take. Without DATA, or
with `--tiny` beside it, less is run. Exit code 1 if an answer is no.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from latentmas.environment import hardware
from latentmas.evaluation import Grade, Grader, benchmarks, open_grader
from latentmas.sandbox import KINDS, sandbox_facts, working

DATA = (("mbppplus", "MbppPlus.jsonl.gz"), ("humanevalplus", "HumanEvalPlus-Mini.jsonl.gz"))
MUTANTS = (
    (4, "hq.nlargest", "hq.nsmallest"),
    (6, "x > 0", "x > 1"),
    (8, "i**2", "i*2"),
    (9, "range(1,", "range(2,"),
    (11, "replace(ch, '', 1)[::-1]", "replace(ch, '', 2)[::-1]"),
    (14, "/ 2", "// 2"),
    (16, "(_[a-z]+)*", "(_[a-z]+)+"),
    (17, "4*a", "a*a"),
    (56, "- 1", "+ 1"),
    (58, "< 0", "<= 0"),
    (59, "2 * n", "2 + n"),
    (62, "min(xs)", "xs[0]"),
    (63, "abs(a - b)", "a - b"),
    (66, "x > 0", "x >= 0"),
    (68, "a >= b", "a > b"),
    (69, "-len(s)+1", "-len(s)"),
    (72, "!= 2", "!= 3"),
    (75, "all(", "any("),
    (77, "% 11", "% 12"),
    (86, "n * (n - 1)", "n * (n + 1)"),
)
"""Task of MBPP+, a part of its correct solution, and what makes it wrong."""
ADD = {"tests": {"entry_point": "add", "inputs": [[1, 2], [30, 4]], "outputs": [3, 34]}}
FORGERIES = {
    "prints what a pass might look like": """
        print('passed'); print('OK'); print('[0, "value", 3]')
        def add(a, b): return None
        """,
    "ends with success before any test": """
        import sys, os
        sys.stdout.flush()
        raise SystemExit(0)
        """,
    "ends at the exit of the interpreter": """
        import atexit, os
        atexit.register(os._exit, 0)
        def add(a, b): os._exit(0)
        """,
    "is equal to everything": """
        class Any(int):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __hash__(self): return 0
        def add(a, b): return Any()
        """,
    "lies about its class": """
        class Any:
            __class__ = int
            def __index__(self): return 3
            def __eq__(self, other): return True
            def __repr__(self): return '3'
        def add(a, b): return Any()
        """,
    "writes claims with the marker of the run, found in the frames": """
        import sys, json, os
        frame = sys._getframe()
        while frame:
            for value in list(frame.f_locals.values()):
                order = getattr(value, 'order', None)
                if isinstance(order, dict):
                    for number in range(2):
                        line = json.dumps([number, 'value', True])
                        os.write(value.output, f"\\n{order['marker']} {line}\\n".encode())
                    line = json.dumps([2, 'end', None])
                    os.write(value.output, f"\\n{order['marker']} {line}\\n".encode())
                    os._exit(0)
            frame = frame.f_back
        """,
    "claims that its outputs are too large to compare": """
        import sys
        def add(a, b):
            value = sys._getframe(1).f_locals['self']
            value.order['trusted'] = True
            value.budget.left = -1
            return 0
        """,
    "leaves all tests out": """
        import sys
        def add(a, b):
            value = sys._getframe(1).f_locals['self']
            value.number = len(value.order['inputs'])
            value.report('end')
            import os; os._exit(0)
        """,
    "repeats the end": """
        import sys
        value = sys._getframe(3).f_locals['self']
        value.number = 2
        value.report('end'); value.report('end')
        import os; os._exit(0)
        """,
    "replaces the harness's functions": """
        import sys, json
        names = sys.modules['__main__'].__dict__
        names['encode'] = lambda value, budget=None: ['o', 'builtins.Ellipsis', 'Ellipsis']
        sys.modules['latentmas.evaluation.grading.programs.values'].encode = names['encode']
        json.dumps = lambda value: '[0, "large", null]'
        def add(a, b): return ...
        """,
    "replaces built-in functions": """
        import builtins, json
        builtins.isinstance = lambda value, kind: True
        builtins.enumerate = lambda items: iter(())
        def add(a, b): return 0
        """,
    "asks for more than lists may nest": """
        def add(a, b):
            value = []
            for _ in range(500): value = [value]
            return value
        """,
    "searches the memory and files for what is expected": """
        import gc, os
        def add(a, b):
            for value in gc.get_objects():
                if isinstance(value, dict) and 'outputs' in value: return value['outputs']
            for name in os.listdir('.'): return open(name).read()
        """,
    "lets the alarm never ring and claims no time has passed": """
        import signal, time
        def add(a, b):
            signal.setitimer(signal.ITIMER_PROF, 0)
            time.monotonic = lambda: 0
            return -1
        """,
}
"""What a program tries, and the program; its task is to add two numbers."""


def dedented(code: str) -> str:
    """A program without the indentation that it has in this file."""
    return code.replace("\n        ", "\n")


def graded(grader: Grader, code: str, sample: dict[str, Any]) -> Grade:
    """Verdict on a program in a block."""
    return grader.grade(f"```python\n{code}\n```", sample.get("answer", ""), sample)


def solutions(grader: Grader, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Grade all correct solutions; HumanEval+'s as continuations of their prompts as well."""
    read = benchmarks.get(name).read

    def one(row: dict[str, Any]) -> tuple[str, list[Grade]]:
        sample = read(row)
        found = [graded(grader, sample["answer"], sample)]
        if "prompt" in sample["tests"]:
            found.append(grader.grade(row["canonical_solution"], sample["answer"], sample))
        return row["task_id"], found

    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        found = dict(pool.map(one, rows))
    failed = {task: [g.reason for g in own] for task, own in found.items() if not passes(own)}
    return {
        "tasks": len(found),
        "passed": len(found) - len(failed),
        "gradings": sum(map(len, found.values())),
        "failed": failed,
        "seconds": round(time.perf_counter() - start, 1),
    }


def passes(grades: Iterable[Grade]) -> bool:
    """Whether all gradings of a task came out right."""
    return all(grade.right for grade in grades)


def mutants(grader: Grader, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Grade solutions that were made wrong."""
    read, by_id = benchmarks.get("mbppplus").read, {row["task_id"]: row for row in rows}
    reasons = {}
    for number, old, new in MUTANTS:
        sample = read(by_id[f"Mbpp/{number}"])
        if sample["answer"].count(old) < 1:
            raise ValueError(f"the solution of Mbpp/{number} has no {old!r}")
        wrong = sample["answer"].replace(old, new)
        grade = graded(grader, wrong, sample)
        reasons[f"Mbpp/{number}: {old} -> {new}"] = grade.reason
    refused = sum(reason != "passed" for reason in reasons.values())
    return {"mutants": len(reasons), "refused": refused, "reasons": reasons}


def forgeries(grader: Grader) -> dict[str, Any]:
    """Grade programs that try to pass without solving the task."""
    found = {name: graded(grader, dedented(code), ADD) for name, code in FORGERIES.items()}
    reasons = {name: grade.reason for name, grade in found.items()}
    refused = sum(not grade.right for grade in found.values())
    return {"forgeries": len(found), "refused": refused, "reasons": reasons}


def measure(folder: Path | None, tiny: bool) -> dict[str, Any]:
    """All measurements."""
    start = time.perf_counter()
    found: dict[str, Any] = {"hardware": hardware(), "sandbox": sandbox_facts()["kind"]}
    kinds = [kind for kind in KINDS if working(kind)]
    found["forged"] = {kind: forgeries(open_grader("code", kind=kind)) for kind in kinds}
    grader = open_grader("code")
    for name, file in DATA if folder is not None else ():
        with gzip.open(Path(str(folder)) / file, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        found[name] = solutions(grader, name, rows[:5] if tiny else rows)
        print(f"{name}: {found[name]['passed']} of {found[name]['tasks']}", file=sys.stderr)
        if name == "mbppplus":
            found["mutated"] = mutants(grader, rows)
    return found | {"seconds": round(time.perf_counter() - start, 1)}


def sound(found: dict[str, Any]) -> bool:
    """Whether everything right passed, and nothing else."""
    whole = [found[name] for name, _ in DATA if name in found]
    refused = [*found["forged"].values(), *([found["mutated"]] if "mutated" in found else [])]
    return all(part["passed"] == part["tasks"] for part in whole) and all(
        part["refused"] == part.get("mutants", part.get("forgeries")) for part in refused
    )


def main() -> None:
    """Measure, print JSON, and say by the exit code whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, help="folder with EvalPlus's releases")
    parser.add_argument("--tiny", action="store_true", help="five tasks of each benchmark")
    parser.add_argument("--json", action="store_true", help="accepted; the output is always JSON")
    parser.add_argument("--output", type=Path, help="file to write the JSON to as well")
    given = parser.parse_args()
    found = measure(given.data, given.tiny)
    text = json.dumps(found, indent=2)
    print(text)
    if given.output is not None:
        given.output.write_text(text + "\n", encoding="utf-8")
    sys.exit(0 if sound(found) else 1)


if __name__ == "__main__":
    main()
