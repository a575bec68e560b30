"""Errors: their messages, their codes, their tree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import latentmas
from latentmas import errors
from latentmas.errors import (
    CODES,
    DataError,
    ExecutionError,
    GraphError,
    LatentMASError,
    PlanError,
    Problem,
    UnknownNameError,
    WeightsError,
    closest,
)
from latentmas.serve import RequestError

PACKAGE = Path(latentmas.__file__).parent
CYCLE = Problem(
    "LM110", "graph", "forward edges form a cycle: a → b → a", 'graph.feedback("b", "a")'
)
DEAD = Problem("LM112", "agent c", "no path leads to the output", "connect it, or remove it")


def test_graph_error_shows_every_problem() -> None:
    error = GraphError([CYCLE, DEAD], "team")
    assert error.problems == (CYCLE, DEAD)
    assert str(error).splitlines() == [
        "2 problems in the graph 'team'",
        "  LM110  graph: forward edges form a cycle: a → b → a",
        '         fix: graph.feedback("b", "a")',
        "  LM112  agent c: no path leads to the output",
        "         fix: connect it, or remove it",
    ]


def test_graph_error_of_one_problem() -> None:
    error = GraphError(iter([DEAD]))
    assert str(error).splitlines()[0] == "1 problem in the graph"
    assert error.problems == (DEAD,)
    assert error.graph == ""


def test_problem_is_plain_data() -> None:
    fields = {"code": "LM112", "path": DEAD.path, "message": DEAD.message, "hint": DEAD.hint}
    assert json.loads(json.dumps(DEAD.to_dict())) == fields
    assert Problem(**fields) == DEAD
    assert str(DEAD) == "LM112 agent c: no path leads to the output; fix: connect it, or remove it"
    assert len({DEAD, Problem(**fields), CYCLE}) == 2
    with pytest.raises(AttributeError):
        DEAD.code = "LM100"  # type: ignore[misc]


def test_unknown_name_is_no_repr() -> None:
    error = UnknownNameError("link kind", "recursiv", ["linear", "recursive"])
    assert (
        str(error)
        == "unknown link kind 'recursiv'; did you mean 'recursive'? known: linear, recursive"
    )
    assert (error.kind, error.name, error.known) == (
        "link kind",
        "recursiv",
        ("linear", "recursive"),
    )
    assert str(UnknownNameError("tool", "x", [])) == "unknown tool 'x'; known: none"
    assert str(UnknownNameError("tool", "x", iter(["y"]))) == "unknown tool 'x'; known: y"


def test_execution_error_says_where() -> None:
    error = ExecutionError("out of memory", step=7, agent="critic", round=2)
    assert str(error) == "round 2, agent 'critic' (step 7): out of memory"
    assert (error.step, error.agent, error.round) == (7, "critic", 2)


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (GraphError, ValueError),
        (PlanError, ValueError),
        (UnknownNameError, KeyError),
        (WeightsError, RuntimeError),
        (DataError, ValueError),
        (ExecutionError, RuntimeError),
    ],
)
def test_tree(error: type[Exception], base: type[Exception]) -> None:
    assert issubclass(error, LatentMASError)
    assert issubclass(error, base)
    assert getattr(latentmas, error.__name__) is error


def test_the_tree_has_no_other_members() -> None:
    assert errors.__all__ == sorted(errors.__all__)
    public = [getattr(errors, name) for name in errors.__all__]
    found = {value for value in public if isinstance(value, type) and issubclass(value, Exception)}
    ours = {c for c in LatentMASError.__subclasses__() if c.__module__.startswith("latentmas")}
    ours.discard(RequestError)  # carries an HTTP status, and belongs to the server
    assert found == {LatentMASError, *ours}


def test_closest() -> None:
    assert closest("plannr", ["critic", "planner"]) == "planner"
    assert closest("zzz", ["critic", "planner"]) is None
    assert closest("x", []) is None


def test_codes_are_the_ones_in_use() -> None:
    used: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name != "errors.py":
            used |= set(
                re.findall(r"LM\d{3}", _without_docstrings(path.read_text(encoding="utf-8")))
            )
    assert used - set(CODES) == set(), "a code without a meaning"
    assert set(CODES) - used == set(), "a code that nothing raises"


@pytest.mark.parametrize(
    ("code", "config"),
    [
        ("LM202", {"model_type": "t5", "d_model": 16, "vocab_size": 99}),
        ("LM202", {"model_type": "vit", "hidden_size": 16}),
        ("LM201", {"model_type": "no-such-model"}),
        ("LM201", {"model_type": "qwen3", "hidden_size": "wide"}),
        ("LM201", {"model_type": "qwen3", "hidden_size": None}),
        ("LM201", {}),
    ],
)
def test_models_that_cannot_serve(tmp_path: Path, code: str, config: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    problem = problem_of_model(str(tmp_path))
    assert problem.code == code
    assert str(tmp_path) in problem.message


@pytest.mark.parametrize("source", ["./no", "/no/no", "package:no/x", "package:latentmas/../.."])
def test_models_that_are_not_there(source: str) -> None:
    problem = problem_of_model(source)
    assert problem.code == "LM201"
    assert source in problem.message


def problem_of_model(source: str) -> Problem:
    """What is wrong with a team of one whose model is at `source`."""
    graph = latentmas.Graph("one", rounds=1)
    graph.add_agent("only", latentmas.Backbone(source), prompt="x")
    with pytest.raises(GraphError) as caught:
        graph.output("only").compile()
    (problem,) = caught.value.problems
    return problem


def test_codes_are_in_order_and_explained() -> None:
    assert list(CODES) == sorted(CODES)
    assert all(re.fullmatch(r"LM[1-5]\d\d", code) for code in CODES)
    assert len(set(CODES.values())) == len(CODES)
    assert all(meaning and not meaning.endswith(".") for meaning in CODES.values())


def _without_docstrings(source: str) -> str:
    return re.sub(r'"""(?s:.*?)"""', "", source)
