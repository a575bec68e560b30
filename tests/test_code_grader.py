"""The grader `code`: what passes, what does not and why, and programs that try to forge a pass."""

from __future__ import annotations

import base64
import importlib
import json
import os
import pickle
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from latentmas import sandbox
from latentmas.errors import LatentMASError
from latentmas.evaluation import Grade, Grader, benchmarks, open_grader
from latentmas.evaluation.graders import code as _code
from latentmas.evaluation.graders.code import encode_values
from latentmas.evaluation.grading.programs import run as _run
from latentmas.evaluation.grading.programs.values import decode

attacks = importlib.import_module("benchmarks.code_grading")

ADD = {"tests": {"entry_point": "add", "inputs": [[1, 2], [30, 4]], "outputs": [3, 34]}}
SUM = {"tests": {"stdin": ["1 2\n", "30 4\n"], "stdout": ["3\n", "34.0\n"]}}
RIGHT_ADD = "def add(a, b):\n    return a + b\n"


@pytest.fixture(scope="module", params=sandbox.KINDS)
def grader(request: pytest.FixtureRequest) -> Grader:
    """A grader in each kind of sandbox that works here."""
    if sandbox.working(request.param) is None:
        pytest.skip(sandbox.refusal(request.param))
    return open_grader("code", kind=request.param, seconds=1.0, total_seconds=300.0)


@pytest.fixture(scope="module")
def any_grader() -> Grader:
    """A grader in the strongest kind of sandbox that works here."""
    if sandbox.sandbox_kind() is None:
        pytest.skip(sandbox.refusal())
    return open_grader("code", seconds=1.0, total_seconds=300.0)


def function_row(*inputs: Any, outputs: Any, **more: Any) -> dict[str, Any]:
    """A row that tests a function `f` of one argument."""
    found = {"inputs": encode_values([[value] for value in inputs]), "entry_point": "f", **more}
    return {"tests": found | {"outputs": encode_values(outputs)}}


def graded(grader: Grader, code: str, row: dict[str, Any], gold: Any = "") -> Grade:
    return grader.grade(f"Here it is:\n\n```python\n{code}\n```\n", gold, row)


# --- verdicts and reasons -----------------------------------------------------------------------

VERDICTS = [
    (RIGHT_ADD, "passed"),
    ("def add(a, b):\n    return a + b if a < 9 else 0", "wrong output in test 2"),
    ("def add(a, b):\n    return total", "NameError: name 'total' is not defined"),
    ("def add(a, b) return a", "SyntaxError: expected ':' (<program>, line 1)"),
    ("def plus(a, b):\n    return a + b", "NameError: the function 'add' is not defined"),
    ("def add(a, b):\n    while True: pass", "time limit"),
    ("def add(a, b):\n    return [a] * 10**10", "memory limit"),
    ("def add(a, b):\n    return add(a, b)", "RecursionError: maximum recursion depth exceeded"),
    ("def add(a, b):\n    raise ValueError", "ValueError"),
    ("import os\ndef add(a, b):\n    os._exit(0)", "the process ended early, with exit code 0"),
    ("import socket\nsocket.socket()\n" + RIGHT_ADD, "PermissionError: [Errno 1] Operation not"),
    ("def add(a, b):\n    print('x' * 10**7)\n    return a + b", "passed"),
    ("class Solution:\n    def add(self, a, b):\n        return a + b", "passed"),
    ("import numpy as np\ndef add(a, b):\n    return np.int64(a) + np.array([b])[0]", "passed"),
]


@pytest.mark.parametrize(("code", "reason"), VERDICTS, ids=[reason for _, reason in VERDICTS])
def test_a_verdict_has_its_reason(grader, code, reason):
    grade = graded(grader, code, ADD)
    assert grade.reason.startswith(reason)
    assert grade.right is (reason == "passed")
    assert grade.answer == code


def test_a_program_cannot_outlast_its_test_by_catching_everything(any_grader):
    code = """
        def add(a, b):
            while True:
                try:
                    while True: pass
                except BaseException: pass"""
    assert graded(any_grader, code.replace("\n        ", "\n"), ADD).reason == "time limit"


def test_a_call_that_python_cannot_interrupt_ends_with_the_total_limit():
    if sandbox.sandbox_kind() is None:
        pytest.skip(sandbox.refusal())
    grader = open_grader("code", seconds=0.2, total_seconds=1.0)
    assert graded(grader, "def add(a, b):\n    return 9**9**9", ADD).reason == "time limit"


def test_tests_do_not_see_what_earlier_tests_did_to_their_input(any_grader):
    row = function_row([3, 1], [3, 1], outputs=[[1, 3], [1, 3]])
    code = "def f(x):\n    x.sort()\n    return x"
    assert graded(any_grader, code, row).reason == "passed"


def test_an_output_counts_as_it_was_when_it_was_returned(any_grader):
    row = function_row(1, 2, outputs=[[1], [1, 2]])
    code = "kept = []\ndef f(x):\n    kept.append(x)\n    return kept"
    assert graded(any_grader, code, row).reason == "passed"


# --- programs -----------------------------------------------------------------------------------

PROGRAMS = [
    ("a, b = map(int, input().split())\nprint(a + b)", "passed"),
    ("print(sum(map(int, open(0).read().split())))\nexit()", "passed"),
    ("import sys\nfor line in sys.stdin:\n    print(sum(map(int, line.split())), '\\n')", "passed"),
    (
        "import sys\nif __name__ == '__main__':\n    read = sys.stdin.buffer.read().split()\n"
        "    sys.stdout.buffer.write(b'%d' % sum(map(int, read)))",
        "passed",
    ),
    (
        "import os, threading\ndef main():\n    a, b = map(int, input().split())\n"
        "    os.write(1, str(a + b).encode())\nthreading.Thread(target=main).start()",
        "passed",
    ),
    ("print(3)", "wrong output in test 2"),
    ("print(3, 3)", "wrong output in test 1"),
    ("input()\ninput()", "EOFError: EOF when reading a line"),
]


@pytest.mark.parametrize(("code", "reason"), PROGRAMS)
def test_programs_read_and_write_as_they_like(grader, code, reason):
    assert graded(grader, code, SUM).reason == reason


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("1 2 \n3\n\n", "1 2\n3", True),
        ("0.50 1e2", "0.5 100", True),
        ("50000000000000001", "50000000000000000", False),
        ("1\n\n2", "1\n2", False),
        ("yes", "YES", False),
        ("0.1 x", "0.10 x", False),
        ("", "0", False),
    ],
)
def test_lines_agree_as_texts_or_as_numbers(any_grader, printed, expected, same):
    row = {"tests": {"stdin": [""], "stdout": [expected]}}
    assert graded(any_grader, f"print({printed!r})", row).right is same


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "expected", "same"),
    [
        ("(1, 2)", (1, 2), True),
        ("[1, 2]", (1, 2), False),
        ("1.0", 1, True),
        ("True", 1, True),
        ("'1'", 1, False),
        ("b'ab'", "ab", False),
        ("0.1 + 0.2", 0.3, True),
        ("[0.1 + 0.2, 1.0]", [0.3, 1.0], True),
        ("[0.1 + 0.2, 'x']", [0.3, "x"], False),
        ("0.3001", 0.3, False),
        ("float('nan')", float("nan"), True),
        ("float('inf')", float("inf"), True),
        ("-float('inf')", float("inf"), False),
        ("10**400 + 1", 10**400 + 1, True),
        ("10**400", 10**400 + 1, False),
        ("{2, 1}", {1, 2}, True),
        ("frozenset([(1, 2)])", {(1, 2)}, True),
        ("{'a': [1], 2: None}", {2: None, "a": [1]}, True),
        ("__import__('collections').Counter('aab')", {"a": 2, "b": 1}, True),
        ("complex(1, -0.5)", 1 - 0.5j, True),
        ("'\\ud800'", "\ud800", True),
        ("None", False, False),
        ("range(3)", [0, 1, 2], False),
        ("__import__('numpy').float64(0.5)", 0.5, True),
        ("__import__('numpy').array([1, 2])", [1, 2], False),
    ],
)
def test_values_keep_their_types(any_grader, returned, expected, same):
    row = function_row(0, outputs=[expected])
    assert graded(any_grader, f"def f(x):\n    return {returned}", row).right is same


@pytest.mark.parametrize(
    ("code", "same"),
    [
        ("def f(x):\n    return np.arange(x) / 3", True),
        ("def f(x):\n    return np.arange(x) / 3 + 1e-9", True),
        ("def f(x):\n    return np.arange(x).reshape(1, -1) / 3", False),
        ("def f(x):\n    return np.arange(x) / 4", False),
        ("def f(x):\n    return np.arange(x + 1) / 3", False),
    ],
)
def test_arrays_are_compared_by_shape_and_elements(any_grader, code, same):
    head = "import numpy as np\n"
    row = {"tests": {"entry_point": "f", "inputs": [[4]]}}
    gold = f"{head}def f(x):\n    return np.arange(x) / 3"
    assert graded(any_grader, head + code, row, gold).right is same


@pytest.mark.parametrize(
    ("compare", "returned", "expected", "same"),
    [
        ("set", "[2, 1, 1]", (1, 2), True),
        ("set", "[2]", (1, 2), False),
        ("set", "None", (1, 2), False),
        ("none", "re.match('a', 'a')", True, True),
        ("none", "re.match('a', 'b')", True, False),
        ("none", "True", True, True),
        ("exact", "(1, 2)", [1, 2], True),
        ("exact", "0.1 + 0.2", 0.3, False),
        ("root", "1.00000001", None, True),
        ("root", "1.1", None, False),
        ("root", "'1'", None, False),
        ("root", "10**400", None, False),
    ],
)
def test_some_tasks_have_rules_of_their_own(any_grader, compare, returned, expected, same):
    row = function_row([-1, 0, 1], outputs=[expected], compare=compare, atol=1e-4)
    assert graded(any_grader, f"import re\ndef f(x):\n    return {returned}", row).right is same


def test_a_second_reading_may_be_right_as_well(any_grader):
    row = function_row(1, 2, outputs=[1, 2], also=encode_values([10, 20]))
    assert graded(any_grader, "def f(x):\n    return x * 10 if x == 2 else x", row).right
    assert not graded(any_grader, "def f(x):\n    return x * 5", row).right


@pytest.mark.parametrize(
    "tree",
    [
        ["l", {"a": 1}],
        ["q", 1],
        [],
        ["i", "0xzz"],
        ["i", 5],
        ["s", ["l", 1]],
        ["d", 1],
        ["a", "<f8", [3], 1.0, 2.0],
        ["a", "<f8"],
        ["b", "0"],
        ["s", *(["i", hex(n * (2**61 - 1))] for n in range(1, 2000))],
    ],
)
def test_what_no_value_is_written_as_is_refused(tree):
    with pytest.raises(ValueError, match=r"."):
        decode(json.loads(json.dumps(tree)))


# --- forged passes ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", attacks.FORGERIES)
def test_a_forged_pass_is_refused(grader, name):
    grade = graded(grader, attacks.dedented(attacks.FORGERIES[name]), ADD)
    assert not grade.right
    assert grade.reason not in ("passed", "no code found")


@pytest.mark.parametrize("answer", [3, 34, "passed"])
def test_a_constant_does_not_pass(any_grader, answer):
    assert not graded(any_grader, f"def add(a, b): return {answer!r}", ADD).right


def test_expected_outputs_never_enter_the_sandbox(any_grader, monkeypatch):
    seen = []
    real = sandbox.run_program
    monkeypatch.setattr(_run, "run_program", lambda *a: seen.append(a[0]) or real(*a))
    row = function_row(
        "question", outputs=["the expected text"], also=encode_values(["another text"])
    )
    assert not graded(any_grader, "def f(x):\n    return x", row).right
    assert len(seen) == 1
    assert "question" in seen[0]
    assert "expected text" not in seen[0]
    assert "another text" not in seen[0]


# --- finding the program ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        RIGHT_ADD,
        f"```python\ndef add(a, b): return 0\n```\nNo:\n```py\n{RIGHT_ADD}```",
        f"```\n{RIGHT_ADD}```",
        f"```Python3\n{RIGHT_ADD}",
        f"<think>```python\ndef add(a, b): return 0\n```</think>\n```python\n{RIGHT_ADD}```",
        f"I think so.</think>```python\nno\n```\n```python\n{RIGHT_ADD}```",
        f"```python\n{RIGHT_ADD}```\nThis prints 3:\n```python\nprint(add(1, 2))\n```",
        f"```python\n{RIGHT_ADD}```\nOutput:\n```\n3\n```\n```text\n34\n```",
        f"~~~python\n{RIGHT_ADD}~~~",
        "    ```python\n" + RIGHT_ADD + "    ```",
    ],
)
def test_the_program_is_found(any_grader, text):
    assert any_grader.grade(text, "", ADD).reason == "passed"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42",
        "No.",
        "The answer is a + b.",
        f"<think>```python\n{RIGHT_ADD}```",
        "```text\n1\n```",
    ],
)
def test_a_text_without_a_program_has_none(any_grader, text):
    assert any_grader.grade(text, "", ADD) == Grade(False, None, "no code found")


PROMPT = (
    "from typing import List\n\n\ndef one() -> int:\n    return 1\n\n\n"
    'def more(x: List[int]) -> List[int]:\n    """Add one to each."""\n'
)


@pytest.mark.parametrize(
    "text",
    [
        "    return [v + one() for v in x]\n",
        "    return [v + one() for v in x]\n\nprint(more([1]))\ndef other(:\n",
        "return [v + 1 for v in x]",
        "```python\n    return [v + 1 for v in x]\n```",
        "```python\ndef more(x: List[int]):\n    return [v + one() for v in x]\n```",
    ],
)
def test_a_text_may_continue_the_prompt(any_grader, text):
    tests = {"entry_point": "more", "inputs": [[[1, 2]]], "outputs": [[2, 3]], "prompt": PROMPT}
    assert any_grader.grade(text, "", {"tests": tests}).reason == "passed"


@pytest.mark.parametrize("text", ["", "pass", PROMPT, f"```python\n{PROMPT}```"])
def test_the_prompt_alone_does_not_pass(any_grader, text):
    tests = {"entry_point": "more", "inputs": [[[1, 2]]], "outputs": [[2, 3]], "prompt": PROMPT}
    assert not any_grader.grade(text, "", {"tests": tests}).right


# --- correct solutions, and rows that cannot be graded ------------------------------------------


def test_a_correct_solution_is_run_once(any_grader, monkeypatch):
    runs = []
    real = _code.run_task
    monkeypatch.setattr(_code, "run_task", lambda *a: runs.append(a[0]) or real(*a))
    row = {"tests": {"entry_point": "add", "inputs": [[1, 2], [5, 6]]}}
    assert any_grader.gold_problem(RIGHT_ADD, row) is None
    assert graded(any_grader, "add = lambda a, b: sum((a, b))", row, RIGHT_ADD).right
    assert graded(any_grader, "def add(a, b): return a - b", row, RIGHT_ADD).reason == (
        "wrong output in test 1"
    )
    assert runs.count(RIGHT_ADD) == 1
    any_grader.close()
    assert any_grader.gold_problem(RIGHT_ADD, row) is None
    assert runs.count(RIGHT_ADD) == 2


def test_a_test_whose_correct_output_is_too_large_is_not_used(any_grader, monkeypatch):
    monkeypatch.setattr(_run, "_MOST_VALUES", 50)
    row = {"tests": {"entry_point": "f", "inputs": [[3], [100], [4]]}}
    gold = "def f(x):\n    return [x] * x"
    assert graded(any_grader, "def f(x):\n    return [x] * x if x < 9 else 0", row, gold).right
    assert not graded(any_grader, "def f(x):\n    return [x] * x if x < 4 else 0", row, gold).right
    long = "def f(x):\n    return [x] * 60"
    assert graded(any_grader, long, row, gold).reason == "TooLargeError: the outputs are too large"
    row = {"tests": {"entry_point": "f", "inputs": [[100]]}}
    assert any_grader.gold_problem(gold, row) == (
        "the correct solution fails: all of its outputs are too large"
    )


@pytest.mark.parametrize(
    ("gold", "tests", "problem"),
    [
        (
            RIGHT_ADD,
            {"entry_point": "add", "inputs": [[1]]},
            "fails: TypeError: add() missing",
        ),
        (
            "",
            {"entry_point": "add", "inputs": [[1, 2]]},
            "nor a correct solution",
        ),
        ("", {"entry_point": "f", "inputs": [], "outputs": []}, "at least one list of arguments"),
        ("", {"entry_point": "f", "inputs": [1], "outputs": [1]}, "at least one list of arguments"),
        ("", {"entry_point": "f", "inputs": [[1]], "outputs": []}, "0 values for 1 inputs"),
        ("", {"entry_point": "f", "inputs": "[", "outputs": []}, "`inputs` cannot be read"),
        ("", {"entry_point": 3, "inputs": [[1]]}, "`entry_point` is a text, not a int"),
        ("x", {"entry_point": "f", "inputs": [[1]], "atol": -1}, "a number of at least 0, not -1"),
        ("x", {"entry_point": "f", "inputs": [[1]], "compare": "near"}, "one of equal, exact"),
        ("x", {"entry_point": "f", "input": [[1]]}, "unknown field 'input'; known: entry_point"),
        ("", {"stdin": ["1"], "stdout": []}, "1 texts as `stdin` and 0 as `stdout`"),
        ("", {"stdin": [1], "stdout": ["1"]}, "texts as `stdin`"),
        ("", {}, "`tests` needs `entry_point` and `inputs`"),
        ("", {"public_tests": "[]", "private_tests": ""}, "there are no test cases"),
        ("", {"public_tests": '[{"input": 1}]'}, "the texts `input` and `output`"),
        ("", {"private_tests": "AAAA"}, "neither JSON nor base64 of compressed data"),
        ("", None, "no field `tests`"),
    ],
)
def test_rows_that_cannot_be_graded_say_why(any_grader, gold, tests, problem):
    row = {} if tests is None else {"tests": tests}
    assert problem in any_grader.gold_problem(gold, row)
    grade = graded(any_grader, RIGHT_ADD, row, gold)
    assert not grade.right
    assert problem in grade.reason


def test_graders_are_called_from_several_threads(any_grader):
    codes = [RIGHT_ADD, "def add(a, b): return a * b"] * 4
    row = {"tests": {"entry_point": "add", "inputs": [[1, 2], [5, 6]]}}
    with ThreadPoolExecutor(4) as pool:
        grades = list(pool.map(lambda code: graded(any_grader, code, row, RIGHT_ADD), codes))
    assert [grade.right for grade in grades] == [True, False] * 4


# --- without a sandbox --------------------------------------------------------------------------


def test_without_a_sandbox_no_grader_is_made(monkeypatch):
    monkeypatch.setattr(_code, "sandbox_kind", lambda: None)
    with pytest.raises(LatentMASError, match=r"no sandbox.*the option unsafe=True of the grader"):
        open_grader("code")
    grader = open_grader("code", unsafe=True)
    assert graded(grader, RIGHT_ADD, ADD).right
    assert not graded(grader, "def add(a, b): return 0", ADD).right


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "docker"}, "kind must be one of bubblewrap, landlock, not 'docker'"),
        ({"packages": "numpy"}, "packages must be a list of names, such as"),
        ({"packages": ["no-such-thing"]}, "pip install no-such-thing"),
        ({"seconds": 0}, "seconds must be above 0 and finite, not 0"),
        ({"total_seconds": -1.0}, "seconds must be above 0 and finite, not -1.0"),
        ({"memory_bytes": 5}, "memory_bytes must be at least"),
    ],
)
def test_options_are_checked_at_once(options, message):
    with pytest.raises(LatentMASError, match=message):
        open_grader("code", unsafe=True, **options)


# --- benchmarks ---------------------------------------------------------------------------------

MBPP_RELEASE = {
    "task_id": "Mbpp/106",
    "prompt": '"""\nWrite a function to append a list.\nassert f([1], (2,)) == (2, 1)\n"""\n',
    "entry_point": "f",
    "canonical_solution": "\ndef f(a, b):\n    return b + tuple(a)\n",
    "base_input": [[[1], [2]]],
    "plus_input": [[[], [1, 2]]],
    "atol": 0,
    "assertion": "\nassert f([1], (2,)) == (2, 1)\nassert f([5, 6], (2,)) == (2, 5, 6)\n",
}
MBPP_HUB = {
    "task_id": 106,
    "prompt": "Write a function to append a list.",
    "code": "def f(a, b):\n    return b + tuple(a)",
    "test_list": ["assert f([1], (2,)) == (2, 1)", "assert f([5, 6], (2,)) == (2, 5, 6)"],
    "test": (
        "import numpy as np\nfrom math import inf\n\ndef assertion(out, exp, atol):\n"
        "    assert out == exp\n\ninputs = [[[1], (2,)], [[], (1, -inf, 1+2j, set(), nan)]]\n"
        "results = [(2, 1), (1,)]\nfor i, (inp, exp) in enumerate(zip(inputs, results)):\n"
        "    assertion(f(*inp), exp, 0.25)\n"
    ),
}
HUMAN_EVAL = {
    "task_id": "HumanEval/32",
    "prompt": "import math\n\ndef find_zero(xs: list):\n",
    "entry_point": "find_zero",
    "canonical_solution": "    return -xs[0] / xs[1]\n",
}


@pytest.mark.parametrize("row", [MBPP_RELEASE, MBPP_HUB], ids=["release", "hub"])
def test_mbppplus_reads_both_forms(any_grader, row):
    sample = benchmarks.get("mbppplus").read(row)
    assert sample["question"] == (
        "Write a function to append a list.\n\nYour solution should satisfy assertions like:\n"
        "assert f([1], (2,)) == (2, 1)\nassert f([5, 6], (2,)) == (2, 5, 6)"
    )
    assert json.loads(json.dumps(sample)) == sample
    assert any_grader.gold_problem(sample["answer"], sample) is None
    assert graded(any_grader, sample["answer"], sample, sample["answer"]).right
    wrong = "def f(a, b):\n    return list(b) + a"
    assert not graded(any_grader, wrong, sample, sample["answer"]).right
    assert sample["tests"]["atol"] == (0.25 if row is MBPP_HUB else 0)


def test_mbppplus_restores_what_json_lacks():
    read = benchmarks.get("mbppplus").read
    task = {**MBPP_RELEASE, "plus_input": {}}

    def inputs(number: int, arguments: list[Any]) -> Any:
        row = {**task, "task_id": f"Mbpp/{number}", "base_input": [arguments]}
        return decode(json.loads(read(row)["tests"]["inputs"]))[0]

    assert inputs(106, [[1], [2]]) == [[1], (2,)]
    assert inputs(115, [[[1, 2], []]]) == [[{1, 2}, {}]]
    assert inputs(124, ["0.5", "1j"]) == [0.5, 1j]
    assert inputs(278, [[1, [2, 3]]]) == [(1, (2, 3))]
    assert inputs(259, [[[1, 2]], [[3, 4]]]) == [((1, 2),), ((3, 4),)]
    assert inputs(580, [[1, [2, [3]]]]) == [(1, (2, (3,)))]
    assert inputs(722, [{"a": [1, 2]}, 3]) == [{"a": (1, 2)}, 3]
    assert inputs(3, [[1]]) == [[1]]


@pytest.mark.parametrize(
    "more",
    [
        {"base_input": [[[-2, 1]]], "plus_input": [[[3.0, 2]]], "atol": 0.0001},
        {"test": "def check(candidate):\n    inputs = [[[-2, 1]], [[3.0, 2]]]\n"},
    ],
    ids=["release", "hub"],
)
def test_humanevalplus_reads_both_forms(any_grader, more):
    sample = benchmarks.get("humanevalplus").read({**HUMAN_EVAL, **more})
    assert any_grader.grade("    return xs[0] / -xs[1]\n", sample["answer"], sample).right
    close = "def find_zero(xs):\n    return -xs[0] / xs[1] + 1e-5"
    assert graded(any_grader, close, sample, sample["answer"]).right
    wrong = "def find_zero(xs):\n    return xs[0] / xs[1]"
    assert not graded(any_grader, wrong, sample, sample["answer"]).right


def packed(cases: Any, protocol: int = 4) -> str:
    data = pickle.dumps(cases if not isinstance(cases, list) else json.dumps(cases), protocol)
    return base64.b64encode(zlib.compress(data)).decode()


def case(given: str, expected: str, kind: str = "stdin") -> dict[str, str]:
    return {"input": given, "output": expected, "testtype": kind}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_livecodebench_reads_packed_programs(any_grader, protocol):
    row = {
        "question_id": "q1",
        "question_content": "Add two numbers.",
        "starter_code": "",
        "metadata": "{}",
        "public_test_cases": json.dumps([case("1 2\n", "3\n")]),
        "private_test_cases": packed([case("30 4\n", "34\n")], protocol),
    }
    sample = benchmarks.get("livecodebench").read(row)
    assert "standard input" in sample["question"]
    assert graded(any_grader, "print(sum(map(int, input().split())))", sample).right
    assert graded(any_grader, "print(3)", sample).reason == "wrong output in test 2"


def test_livecodebench_reads_functions(any_grader):
    head = "class Solution:\n    def pairs(self, a: List[int], k: int) -> List[int]:\n"
    row = {
        "question_id": "q1",
        "question_content": "Count pairs.",
        "starter_code": head,
        "metadata": '{"func_name": "pairs"}',
        "public_test_cases": json.dumps([case("[1, 2]\n3", "[1, 2, 3]", "functional")]),
        "private_test_cases": packed([case("[]\n0", "[0]", "functional")]),
    }
    sample = benchmarks.get("livecodebench").read(row)
    assert head.strip() in sample["question"]
    assert graded(any_grader, f"{head}        return tuple(a) + (k,)", sample).right
    assert not graded(any_grader, f"{head}        return a", sample).right


class _Payload:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("unpickled"),))


@pytest.mark.parametrize("content", [_Payload(), ["a"], {"a": 1}, 5])
def test_a_pickle_of_anything_but_a_text_is_refused(any_grader, monkeypatch, tmp_path, content):
    monkeypatch.chdir(tmp_path)
    data = base64.b64encode(zlib.compress(pickle.dumps(content))).decode()
    problem = any_grader.gold_problem("", {"tests": {"private_tests": data}})
    assert "the pickle holds" in problem
    assert not Path("unpickled").exists()


# --- published data -----------------------------------------------------------------------------


def test_correct_solutions_of_published_tasks_pass(any_grader):
    folder = os.environ.get("LATENTMAS_DATA")
    if folder is None:
        pytest.skip("LATENTMAS_DATA, a folder with MbppPlus.jsonl.gz and the like, is not set")
    import gzip

    for name, file in (
        ("mbppplus", "MbppPlus.jsonl.gz"),
        ("humanevalplus", "HumanEvalPlus-Mini.jsonl.gz"),
    ):
        with gzip.open(Path(folder) / file, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines][:10]
        for row in rows:
            sample = benchmarks.get(name).read(row)
            assert graded(any_grader, sample["answer"], sample, sample["answer"]).right
