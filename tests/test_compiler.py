"""The compiler by example: every code once, slot rules, sharing, schedule, text, facts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentmas import Backbone, Graph, GraphError, GraphSpec, Plan
from latentmas.compiler import wire
from latentmas.errors import CODES
from latentmas.links import LinkSketch, link_sketch
from latentmas.plan import Decode, Rollout, Transfer
from tests.strategies import info

FACTS = {"org/wide": info(16), "org/thin": info(8)}
BACK = "{% if feedback %}{{ feedback }}{% endif %}"
Build = Callable[[], Graph]


def team(**fields: Any) -> Graph:
    """planner → critic → solver, and a feedback edge back."""
    graph = Graph("team", inputs=["question"], **{"rounds": 2} | fields)
    wide = Backbone("org/wide")
    graph.add_agent("planner", wide, prompt=f"Plan {{{{ question }}}} {BACK}")
    graph.add_agent("critic", Backbone("org/thin"), prompt="Improve {{ planner }}")
    graph.add_agent("solver", wide, prompt="Solve {{ critic }}")
    graph.connect("planner", "critic")
    graph.connect("critic", "solver")
    graph.feedback("solver", "planner.feedback")
    return graph.output("solver")


def edit(**changes: Any) -> Graph:
    """The team with fields changed: `rounds=…`, `critic__prompt=…`, `back__delay=…`."""
    data = json.loads(team().spec().to_json())
    places = {"": data, "backbones": data["backbones"]}
    places |= dict(zip(("planner", "critic", "solver"), data["agents"], strict=True))
    places |= dict(zip(("forward", "second", "back"), data["edges"], strict=True))
    for path, value in changes.items():
        place, _, field = path.rpartition("__")
        places[place][field] = value
    return Graph.from_spec(GraphSpec.parse(data))


def link(**fields: Any) -> Graph:
    """The team with another outer link from the planner (16 wide) to the critic (8 wide)."""
    return edit(forward__link=fields)


def plus(*calls: tuple[Any, ...]) -> Graph:
    """The team after more calls: `("connect", "a", "b")`, `("agent", name, prompt)`."""
    graph = team()
    for call, *arguments in calls:
        if call == "agent":
            graph.add_agent(arguments[0], "wide", prompt="".join(arguments[1:]))
        else:
            getattr(graph, call)(*arguments)
    return graph


def problems(graph: Graph) -> list[tuple[str, str]]:
    """Codes and texts of a graph's problems."""
    with pytest.raises(GraphError) as caught:
        graph.compile(facts=FACTS)
    return [(problem.code, str(problem)) for problem in caught.value.problems]


LATE = ("agent", "a"), ("agent", "b", "{% if x %}{{ x }}{% endif %}"), ("feedback", "a", "b.x")
FIXED = {"kind": "identity", "norm": "embedding"}
SAME = {"residual": "identity"}
SHARED, MLP = {"share": "w"}, {"kind": "mlp"}
ADAPTED = {"source": "org/wide", "adapter": "./none"}
TEXT = ("add_text_source", "t", "x")
ORPHANS = ("agent", "x"), ("agent", "y", "{{ x }}"), ("connect", "x", "y")
# Code, graph, and words (parted by |) that one of its problems must hold.
CASES: list[tuple[str, Build, str]] = [
    ("LM100", lambda: edit(rounds="many"), "rounds|'many'"),
    ("LM101", lambda: edit(critic__backbone="wid"), "agent critic|'wid'|mean 'wide'?"),
    ("LM101", lambda: edit(critic__backbone="zzz"), "'zzz'|declared: wide, thin"),
    ("LM102", lambda: plus(("agent", "critic")), "critic|2 things|rename"),
    ("LM102", lambda: edit(inputs=["question", "critic"]), "'critic' (agent, input)"),
    ("LM103", lambda: edit(critic__prompt="{{ planner }}{{ qestion }}"), "qestion|{{ question }}?"),
    ("LM104", lambda: plus(("connect", "planner", "solver.critic")), "solver|'critic' is bound by"),
    ("LM104", lambda: plus(("connect", "critic", "planner.question")), "an input and by 'critic'"),
    ("LM105", lambda: edit(forward__slot="planer"), "edge planner->critic.planer|slot 'planner'?"),
    (
        "LM105",
        lambda: plus(*LATE, ("feedback", "b", "solver.m")),
        "a->b.x|after 3 rounds|set rounds",
    ),
    ("LM106", lambda: edit(critic__prompt="no slot"), "edge planner->critic|no free|{{ planner }}"),
    (
        "LM106",
        lambda: edit(critic__prompt="{{ x }}{{ y }}"),
        'graph.connect("planner", "critic.x")',
    ),
    ("LM107", lambda: edit(forward__source="planer"), "'planer' does not exist|mean 'planner'?"),
    ("LM107", lambda: edit(forward__target="zzz"), "'zzz' does not exist|planner, critic, solver"),
    ("LM108", lambda: plus(("agent", "range")), "agent range|meaning in templates|range_1"),
    ("LM108", lambda: plus(("agent", "my agent")), "'my agent' cannot be|underscores"),
    ("LM108", lambda: plus(("add_text_source", "wörld", "x")), "text source wörld"),
    ("LM110", lambda: edit(back__delay=0), "planner → critic → solver → planner"),
    ("LM110", lambda: edit(back__delay=0), 'graph.feedback("solver", "planner'),
    ("LM110", lambda: plus(("connect", "solver", "solver.x")), "solver → solver"),
    ("LM111", lambda: edit(output=[]), 'no agent is the output|graph.output("solver")'),
    ("LM111", lambda: plus(("output", "critic")), "2 outputs: solver, critic|once"),
    ("LM111", lambda: edit(output="solvr"), "'solvr' is not an agent|mean 'solver'?"),
    ("LM112", lambda: plus(("agent", "x"), ("connect", "critic", "x.y")), "agent x|no path"),
    ("LM113", lambda: team(rounds=0), "rounds is 0|from 1 to 100"),
    ("LM113", lambda: team(rounds=101), "rounds is 101"),
    ("LM113", lambda: team(latent_steps=0), "planner|latent_steps is 0|allow_empty to true"),
    ("LM113", lambda: team(latent_steps=-1), "latent_steps is -1"),
    ("LM113", lambda: edit(planner__latent_steps=4097), "planner|latent_steps is 4097|to 4096"),
    ("LM113", lambda: edit(solver__max_new_tokens=0), "solver|max_new_tokens is 0"),
    ("LM113", lambda: edit(back__delay=2), "solver->planner.feedback|delay is 2|0 (connect) or 1"),
    ("LM114", lambda: team(rounds=1), "edge solver->planner.feedback|rounds is 1|2 or more"),
    ("LM115", lambda: edit(inputs=["question", "topic"]), "input topic|{{ topic }}"),
    ("LM115", lambda: plus(("add_text_source", "t", "x")), 'text source t|graph.connect("t"'),
    ("LM116", lambda: Graph("empty"), "no agents|graph.add_agent"),
    ("LM117", lambda: plus(*ORPHANS), "part x, y|'solver'"),
    ("LM118", lambda: edit(planner__tools=["a b"]), "'a b' cannot be a tag|letters"),
    ("LM118", lambda: edit(planner__tools=["result"]), "'result' cannot be a tag|reserved"),
    ("LM118", lambda: edit(planner__tools=["python", "python"]), "given 2 times|once"),
    ("LM119", lambda: edit(planner__tools=["pyhton"]), "agent planner|'pyhton'|mean 'python'?"),
    ("LM120", lambda: link(kind="identity"), "planner->critic.planner|16 and 8|'wide' to 'thin'"),
    ("LM120", lambda: link(kind="recursive", options=SAME), "identity residual|16 and 8"),
    ("LM121", lambda: link(kind="recursiv"), "mean 'recursive'?|@link_kinds.register"),
    (
        "LM121",
        lambda: link(options={"expnsion": 2}),
        "unknown option 'expnsion'|mean expansion=2|residual, expansion",
    ),
    ("LM121", lambda: link(options={"expansion": 0}), "expansion|greater than or equal to 1"),
    (
        "LM121",
        lambda: link(kind="mlp", init="ridge"),
        "'mlp' has no initialisation 'ridge'|one of default",
    ),
    ("LM121", lambda: edit(planner__inner={"kind": "text"}), "inner link of planner|'text'"),
    ("LM121", lambda: edit(planner__inner=FIXED), 'cannot scale|norm="none"'),
    ("LM122", lambda: edit(forward__link=SHARED, second__link=SHARED), "critic->solver|'w'|in_dim"),
    ("LM122", lambda: edit(planner__inner=SHARED, solver__inner=SHARED | MLP), "kind is mlp"),
    ("LM123", lambda: plus(TEXT, ("feedback", "t", "critic.t")), 'graph.connect("t", "critic.t")'),
    ("LM201", lambda: edit(backbones__wide={"source": "./none"}), "wide|./none|compile(facts"),
    ("LM203", lambda: edit(backbones__idle={"source": "org/idle"}), "backbone idle|remove it"),
    ("LM208", lambda: edit(backbones__wide=ADAPTED), "backbone wide|'./none' does not exist"),
    ("LM301", lambda: edit(critic__prompt="{{ planner }}\n{% if x"), "agent critic|line 2"),
    ("LM302", lambda: edit(planner__prompt="{{ question }}{{ feedback }}"), "{% if feedback %}"),
    ("LM303", lambda: edit(critic__prompt="{{ planner|upper }}"), "agent critic|{{ slot }}"),
    ("LM303", lambda: edit(critic__prompt="{% if planner %}!{% endif %}"), "never placed"),
]


@pytest.mark.parametrize(("code", "build", "words"), CASES)
def test_code(code: str, build: Build, words: str) -> None:
    with pytest.raises(GraphError) as caught:
        build().compile(facts=FACTS)
    texts = [str(problem) for problem in caught.value.problems if problem.code == code]
    assert texts, str(caught.value)
    assert any(all(word in text for word in words.split("|")) for text in texts), texts


def test_every_code_of_the_compiler_has_a_case() -> None:
    elsewhere = {"LM202", "LM124"}  # LM124: test_default_links.py
    elsewhere |= {"LM204", "LM205", "LM206", "LM207"}  # test_loading.py, test_given_models.py
    assert {code for code, _, _ in CASES} | elsewhere == {code for code in CODES if code < "LM400"}


def test_all_problems_come_at_once() -> None:
    graph = edit(inputs=["question", "topic"], rounds=0, planner__backbone="nowhere", output=[])
    graph.connect("solver", "ghost.x")
    found = [code for code, _ in problems(graph)]
    assert {"LM115", "LM113", "LM101", "LM111", "LM107"} <= set(found)


def test_one_mistake_is_one_problem() -> None:
    assert [code for code, _ in problems(edit(back__delay=0))] == ["LM110"]
    assert [code for code, _ in problems(team(rounds=1))] == ["LM114"]
    assert [code for code, _ in problems(edit(critic__prompt="{{ planner|upper }}"))] == ["LM303"]


def test_slots_named_like_their_source_win() -> None:
    graph = edit(critic__prompt="{{ planner }} {{ hint }}")
    graph.add_agent("helper", "wide", prompt="x")
    graph.connect("helper", "critic")
    edges = graph.compile(facts=FACTS).graph.edges
    assert [edge.id for edge in edges][0::3] == ["planner->critic.planner", "helper->critic.hint"]


def test_two_edges_cannot_both_take_the_last_slot() -> None:
    graph = edit(critic__prompt="{{ draft }}")
    graph.add_agent("helper", "wide", prompt="x")
    graph.connect("helper", "critic")
    assert [code for code, _ in problems(graph)].count("LM106") == 2


def test_equal_backbones_are_one() -> None:
    graph = edit(backbones__twin={"source": "org/wide"}, solver__backbone="twin")
    plan = graph.compile(facts=FACTS)
    assert {key: b.agents for key, b in plan.backbones.items()} == {
        "wide": ("planner", "solver"),
        "thin": ("critic",),
    }
    assert [agent.backbone for agent in plan.graph.agents] == ["wide", "thin", "wide"]
    other = edit(
        backbones__twin={"source": "org/wide", "dtype": "float32"}, solver__backbone="twin"
    )
    assert len(other.compile(facts=FACTS).backbones) == 3


def test_the_schedule_by_hand() -> None:
    plan = team().compile(facts=FACTS)
    assert [f"{step.op} {step.output}" for step in plan.steps] == [
        "rollout round1.planner",
        "transfer round1.planner->critic",
        "rollout round1.critic",
        "transfer round1.critic->solver",
        "rollout round1.solver",
        "transfer round1.solver->planner",
        "rollout round2.planner",
        "transfer round2.planner->critic",
        "rollout round2.critic",
        "transfer round2.critic->solver",
        "decode round2.solver.text",
    ]
    assert [link.id for link in plan.links] == [
        *("inner.planner", "inner.critic", "inner.solver", "outer.planner->critic.planner"),
        *("outer.critic->solver.critic", "outer.solver->planner.feedback"),
    ]
    assert (plan.links[3].in_dim, plan.links[3].out_dim) == (16, 8)


def test_the_output_agent_does_not_roll_in_the_last_round_and_nobody_decodes_in_between() -> None:
    plan = team(rounds=4).compile(facts=FACTS)
    rolls = [
        step.round for step in plan.steps if isinstance(step, Rollout) and step.agent == "solver"
    ]
    assert rolls == [1, 2, 3]
    assert [step for step in plan.steps if isinstance(step, Decode)] == [plan.steps[-1]]
    late = [s.target for s in plan.steps if isinstance(s, Transfer) and s.round == 4]
    assert late == ["critic", "solver"]


def test_text_edges_make_decodes() -> None:
    plan = link(kind="text").compile(facts=FACTS)
    text_messages = [s for s in plan.steps if isinstance(s, Decode) and not s.final]
    assert [(s.agent, s.round, s.output) for s in text_messages] == [
        ("planner", 1, "round1.planner.text"),
        ("planner", 2, "round2.planner.text"),
    ]
    assert "inner.planner" not in [entry.id for entry in plan.links]
    # what enters the planner meets text on its way on: no gradient comes back
    assert [x.id for x in plan.links if not x.differentiable] == [
        "inner.solver",
        "outer.solver->planner.feedback",
    ]


def test_text_sources_are_values_from_the_start() -> None:
    graph = edit(critic__prompt="{{ planner }} {{ rules }}")
    graph.add_text_source("rules", lambda sample: sample["question"])
    graph.connect("rules", "critic")
    plan = graph.compile(facts=FACTS)
    critics = [s for s in plan.steps if isinstance(s, Rollout) and s.agent == "critic"]
    assert [s.inputs["rules"] for s in critics] == ["rules", "rules"]
    assert plan.graph.edges[-1].link.kind == "text"
    assert Plan.from_json(plan.to_json()).digest == plan.digest


def test_the_text_twin() -> None:
    graph = edit(planner__max_new_tokens=7)
    twin = graph.as_text(max_new_tokens=99)
    plan = twin.compile(facts=FACTS)
    assert plan.links == ()
    assert {type(step) for step in plan.steps} == {Decode}
    assert [agent.max_new_tokens for agent in plan.graph.agents] == [7, 99, 99]
    assert twin.spec().name == "team-text"
    assert {edge.link.kind for edge in graph.spec().edges} == {"soft_token"}, (
        "the graph itself is as before"
    )


def test_the_null_channel_is_asked_for_by_name() -> None:
    graph = edit(planner__latent_steps=0, planner__allow_empty=True)
    rolls = [step for step in graph.compile(facts=FACTS).steps if isinstance(step, Rollout)]
    assert {step.agent: step.latent_steps for step in rolls} == {
        "planner": 0,
        "critic": 16,
        "solver": 16,
    }
    with pytest.raises(GraphError, match="LM113"):
        team().compile(facts=FACTS).replace(latent_steps=0)


def test_depth_can_change_after_compiling() -> None:
    plan = team().compile(facts=FACTS)
    assert plan.replace(rounds=5) == team(rounds=5).compile(facts=FACTS)
    assert plan.replace(latent_steps=4) == team(latent_steps=4).compile(facts=FACTS)
    with pytest.raises(GraphError, match="LM113"):
        plan.replace(rounds=0)


def test_links_of_one_form_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[int, int]] = []

    def counting(name: str) -> LinkSketch:
        sketch = link_sketch(name)

        def measure(options: Any, in_dim: int, out_dim: int) -> tuple[int, bool]:
            measured.append((in_dim, out_dim))
            return sketch.measure(options, in_dim, out_dim)

        return sketch._replace(measure=measure)

    monkeypatch.setattr(wire, "link_sketch", counting)
    graph = Graph("chain", inputs=["q"], rounds=1)
    for i in range(6):
        graph.add_agent(
            f"a{i}", Backbone("org/m"), prompt="{{ q }}" + (f"{{{{ a{i - 1} }}}}" * (i > 0))
        )
    for i in range(5):
        graph.connect(f"a{i}", f"a{i + 1}")
    plan = graph.output("a5").compile(facts={"org/m": info(8)})
    assert len(plan.links) == 10
    assert len(measured) == 2  # an inner one and an outer one


def test_facts_come_from_the_configuration_alone(tmp_path: Path) -> None:
    config: dict[str, Any] = {"model_type": "qwen3", "hidden_size": 48, "vocab_size": 99}
    config |= {"num_hidden_layers": 3, "max_position_embeddings": 512}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    plan = edit(backbones__thin={"source": str(tmp_path)}).compile(facts=FACTS)
    found = plan.backbones["thin"].info
    assert (found.model_type, found.hidden_size, found.vocab_size) == ("qwen3", 48, 99)
    assert (found.num_layers, found.max_positions) == (3, 512)
    assert plan.links[3].out_dim == 48
