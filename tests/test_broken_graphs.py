"""Broken graphs and junk: always the right error with its code, never anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from latentmas.compiler import compile_graph
from latentmas.errors import CODES, DataError, GraphError, PlanError
from latentmas.plan import Plan
from latentmas.spec import Graph, GraphSpec
from tests.strategies import BREAKERS, Facts, broken_graphs, info, valid_graphs

relaxed = settings(
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
    ],
)
many = settings(relaxed, max_examples=80)

# JSON values whose keys are often those of a graph or plan, so that they get past the first check
KEYS = sorted(
    {*GraphSpec.model_fields, *Plan.model_fields, "source", "spec", "info", "prompt", "inner"}
)
plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(KEYS)
)
junk = st.recursive(
    plain,
    lambda child: (
        st.lists(child, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), child, max_size=4)
    ),
    max_leaves=12,
)
short = st.text(max_size=8) | st.sampled_from(("a", "b", "{{ a }}", "{% if a %}{{ a }}{% endif %}"))
agent_like = st.fixed_dictionaries(
    {"name": short, "backbone": st.just("k"), "prompt": short},
    optional={
        "chat_options": st.dictionaries(short, junk, max_size=2),
        "inner": junk,
        "system": short,
    },
)
edge_like = st.fixed_dictionaries(
    {"source": short, "target": short}, optional={"slot": short, "delay": st.integers(-1, 2)}
)
graph_like = st.fixed_dictionaries(
    {},
    optional={
        "version": st.just(1) | plain,
        "inputs": st.lists(short, max_size=2) | junk,
        "backbones": st.just({"k": {"source": "s"}})
        | st.dictionaries(short, junk, max_size=2)
        | junk,
        "agents": st.lists(agent_like, max_size=2) | st.lists(junk, max_size=2),
        "edges": st.lists(edge_like, max_size=2) | st.lists(junk, max_size=2),
        "output": st.sampled_from(("a", "b")) | junk,
        "rounds": st.integers(1, 3) | junk,
    },
)


def problems_of(spec: GraphSpec, facts: Facts) -> set[str]:
    """Codes of a graph's problems, each of which must be complete."""
    with pytest.raises(GraphError) as caught:
        compile_graph(spec, facts=facts)
    assert caught.value.graph == spec.name
    for problem in caught.value.problems:
        assert problem.code in CODES
        assert problem.path.strip(), problem
        assert problem.message.strip(), problem
        assert problem.hint.strip(), problem
        assert f"{problem.code}  {problem.path}: {problem.message}" in str(caught.value)
        assert f"fix: {problem.hint}" in str(caught.value)
    return {problem.code for problem in caught.value.problems}


@pytest.mark.parametrize("name", sorted(BREAKERS))
@settings(relaxed, max_examples=10)
@given(pair=valid_graphs())
def test_one_mistake_is_reported_with_its_code(name: str, pair: tuple[GraphSpec, Facts]) -> None:
    data = json.loads(pair[0].to_json())
    code = BREAKERS[name](data)
    assume(code)
    assert code in problems_of(GraphSpec.parse(data), pair[1] | {"org/narrow": info(12)})


@many
@given(broken_graphs())
def test_several_mistakes_raise_graph_error_and_nothing_else(
    case: tuple[GraphSpec, Facts, list[str]],
) -> None:
    spec, facts, expected = case
    assert problems_of(spec, facts) & set(expected)


@settings(relaxed, max_examples=30)
@given(broken_graphs(), st.integers(-1, 9))
def test_problems_are_the_same_each_time(
    case: tuple[GraphSpec, Facts, list[str]], rounds: int
) -> None:
    spec = case[0].replace(rounds=rounds)
    outcomes = []
    for _ in range(2):
        try:
            outcomes.append(compile_graph(spec, facts=case[1]).digest)
        except GraphError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    "piece",
    [
        "{% if question %}{{ question|nofilter }}{% endif %}",
        "{{ question|map('nofilter')|list }}",
        "{{ ''|dictsort(by='x') }}",
        "{% include 'x' %}",
        f"{{{{ {'(' * 3000}1{')' * 3000} }}}}",
    ],
)
def test_templates_that_cannot_render(piece: str) -> None:
    spec = GraphSpec.parse({"inputs": ["question"], **one_agent(piece), "output": "a"})
    assert problems_of(spec, {"org/x": info()}) >= {"LM301"}


@pytest.mark.parametrize("piece", ["{{ none|dictsort }}", "{{ question.x() }}", "{{ 1 // 0 }}"])
def test_computations_on_stand_ins_never_crash(piece: str) -> None:
    _judge(GraphSpec.parse({"inputs": ["question"], **one_agent(piece), "output": "a"}))


@many
@given(junk | graph_like)
def test_parse_refuses_junk_with_graph_error(value: Any) -> None:
    for read in (lambda: GraphSpec.parse(value), lambda: GraphSpec.from_json(json.dumps(value))):
        try:
            spec = read()
        except GraphError as error:
            assert {problem.code for problem in error.problems} == {"LM100"}
            continue
        assert GraphSpec.from_json(spec.to_json()) == spec
        _judge(spec)


@many
@given(junk | graph_like | st.text(max_size=40))
def test_plan_refuses_junk_with_plan_error(value: Any) -> None:
    with pytest.raises(PlanError):
        Plan.from_json(value if isinstance(value, str) else json.dumps(value))


@many
@given(pair=valid_graphs(max_agents=3), seed=st.randoms(use_true_random=False), value=junk)
def test_a_damaged_plan_is_refused_or_read(
    pair: tuple[GraphSpec, Facts], seed: Any, value: Any
) -> None:
    data = json.loads(compile_graph(pair[0], facts=pair[1]).to_json())
    place: Any = data
    while True:
        key = seed.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
        if not (isinstance(place[key], dict | list) and place[key]) or seed.random() < 0.1:
            break
        place = place[key]
    place[key] = value
    try:
        plan = Plan.from_json(json.dumps(data))
    except PlanError:
        return
    assert Plan.from_json(plan.to_json()) == plan


@many
@given(value=junk | graph_like)
def test_yaml_files_of_junk(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    _load(
        tmp_path_factory.getbasetemp() / "junk.yaml",
        yaml.safe_dump(value).encode("utf-8", "surrogatepass"),
    )


@many
@given(
    text=st.text(alphabet="ab:-[]{},&*!|>?#'\"% \n\t<=~1\x85", max_size=24) | st.binary(max_size=12)
)
def test_files_of_noise(tmp_path_factory: pytest.TempPathFactory, text: str | bytes) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    for name in ("noise.yaml", "noise.json"):
        _load(tmp_path_factory.getbasetemp() / name, content)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"!!map [1]",
        b"name: !!bool maybe",
        b"name: !!timestamp soon",
        b"name: !!int ''",
        b"? [a]\n: 1",
        b"agents: &x [*x]",
        b"name: !!python/object:os.system x",
        b"backbones: {a: {}}",
        b"backbones: {a: {self: 1, source: x}}",
        b"backbones: {a: {1: 1, source: x}}",
        b'backbones: {a: "./\\0"}',
        b'agents: [{name: a, prompt_file: "a\\0b"}]',
        b"agents: [{name: a, prompt_file: [1]}]",
        b"agents: [{name: a, prompt_file: .}]",
        b"[" * 5000,
    ],
)
def test_nasty_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "nasty.yaml"
    path.write_bytes(content)
    with pytest.raises((GraphError, DataError)):
        Graph.load(path).compile()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "", "nul", "1e999", '"\\ud800"', "[NaN]"]
)
def test_nasty_json(text: str) -> None:
    with pytest.raises(GraphError):
        GraphSpec.from_json(text)
    with pytest.raises(PlanError):
        Plan.from_json(text)


@pytest.mark.parametrize("backbone", [{}, {"self": 1, "source": "x"}, {"source": 1}, [], "x", None])
def test_malformed_backbones(backbone: Any) -> None:
    data = {"backbones": {"a": backbone}}
    with pytest.raises(GraphError) as caught:
        GraphSpec.parse(data)
    assert caught.value.problems[0].path.startswith("backbones.a")
    with pytest.raises(PlanError):
        Plan.from_json(json.dumps({"graph": data}))


def test_text_that_no_file_can_hold_is_refused_when_it_is_declared() -> None:
    with pytest.raises(GraphError):
        GraphSpec.from_json('{"name": "\\ud800"}')


def test_loading_what_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path, tmp_path / "a\0b"):
        with pytest.raises((DataError, GraphError)):
            GraphSpec.load(path)
        with pytest.raises(PlanError):
            Plan.open(path)


def one_agent(piece: str) -> dict[str, Any]:
    agent = {"name": "a", "backbone": "k", "prompt": piece + "{{ question }}"}
    return {"agents": [agent], "backbones": {"k": {"source": "org/x"}}}


def _load(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        spec = GraphSpec.load(path)
    except (GraphError, DataError):
        return
    _judge(spec)


def _judge(spec: GraphSpec) -> None:
    """Compile what could be read, without looking for models on the network."""
    facts = {key: info() for key in spec.backbones}
    try:
        compile_graph(spec, facts=facts)
    except GraphError as error:
        assert error.problems
