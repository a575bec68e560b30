"""Mistakes that users make, each with a message that says what to write instead."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.compiler.tools import _one_slip
from latentmas.spec import full_dtype
from latentmas.testing import tiny_backbone
from tests.strategies import info

FACTS = {"org/m": info(16)}
MODEL = lm.Backbone("org/m")


def pair(**options: Any) -> lm.Graph:
    """planner → solver."""
    graph = lm.Graph("pair", inputs=["question"], rounds=1)
    graph.add_agent("planner", MODEL, prompt="Plan {{ question }}")
    graph.add_agent("solver", MODEL, prompt="Solve {{ planner }}", **options)
    graph.connect("planner", "solver")
    return graph.output("solver")


def problem_of(graph: lm.Graph) -> lm.Problem:
    """The one problem of a graph."""
    with pytest.raises(lm.GraphError) as caught:
        graph.compile(facts=FACTS)
    (problem,) = caught.value.problems
    return problem


# --- the builder ------------------------------------------------------------------------------


def test_what_looks_settable_is_settable() -> None:
    graph = pair()
    graph.rounds, graph.latent_steps, graph.name, graph.inputs = 5, 7, "other", "question"
    spec = graph.spec()
    assert (spec.rounds, spec.latent_steps, spec.name) == (5, 7, "other")
    assert spec.inputs == ("question",)
    assert (graph.rounds, graph.latent_steps, graph.name) == (5, 7, "other")
    graph.rounds = 0
    assert problem_of(graph).message == "rounds is 0"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("round", "did you mean 'rounds'?"),
        ("output", "call graph.output(agent)"),
        ("agents", "graph.add_agent(…)"),
        ("edges", "graph.connect(…)"),
        ("colour", "no attribute 'colour'"),
    ],
)
def test_other_attributes_cannot_be_set(name: str, words: str) -> None:
    with pytest.raises(AttributeError) as caught:
        setattr(pair(), name, 5)
    assert words in str(caught.value)


def test_a_subclass_keeps_attributes_of_its_own() -> None:
    class Mine(lm.Graph):
        pass

    mine = Mine()
    mine.colour = "red"
    assert mine.colour == "red"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("run", "graph.compile().load().run(samples)"),
        ("draw", "graph.compile().draw(path)"),
        ("conect", "did you mean 'connect'?"),
        ("zzz", "no attribute 'zzz'"),
    ],
)
def test_calls_on_a_graph(name: str, words: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(pair(), name)
    assert words in str(caught.value)


def test_calls_on_a_plan_and_a_system() -> None:
    graph = lm.Graph("solo", inputs=["question"], rounds=1)
    graph.add_agent("solo", tiny_backbone("llama", 16), prompt="{{ question }}")
    plan = graph.output("solo").compile()
    system = plan.load()
    for thing, name, words in (
        (plan, "run", "plan.load().run(samples)"),
        (plan, "rounds", "plan.replace(rounds=…)"),
        (plan, "sumary", "did you mean 'summary'?"),
        (system, "save", "system.save_pretrained(folder)"),
        (system, "draw", "system.plan.draw(path)"),
        (system, "stram", "did you mean 'stream'?"),
    ):
        with pytest.raises(AttributeError) as caught:
            getattr(thing, name)
        assert words in str(caught.value)
    for call, words in (
        (lambda: graph.load("cuda"), "graph.compile().load()"),
        (lambda: graph.load(), "graph.compile().load()"),
        (lambda: system.load(), "system.run(samples)"),
        (lambda: system.run(["x"], temprature=0.5), "did you mean 'temperature'?"),
        (lambda: system("x", do_smple=True), "did you mean 'do_sample'?"),
        (lambda: plan.load(devce="cpu"), "did you mean 'device'?"),
    ):
        with pytest.raises(TypeError) as refused:
            call()
        assert words in str(refused.value)


def test_misspelt_arguments() -> None:
    for call, words in (
        (lambda: lm.Graph("x", round=3), "Graph takes no argument 'round'; did you mean 'rounds'?"),
        (lambda: lm.Graph("x").add_agent("a", MODEL, promt="x"), "did you mean 'prompt'?"),
        (lambda: pair().compile(fact={}), "did you mean 'facts'?"),
        (lambda: lm.templates.sequential(planer=MODEL), "did you mean 'planner'?"),
        (lambda: lm.OuterConfig("out", lerning_rate=1), "did you mean 'learning_rate'?"),
        (lambda: lm.InnerConfig("out", zzz=1), "InnerConfig takes no argument 'zzz'"),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert words in str(caught.value)
    assert lm.OuterConfig("out", learning_rate=1e-3, use_cpu=True).learning_rate == 1e-3


def test_a_misspelt_argument_of_connect() -> None:
    graph = pair()
    graph.connect("planner", "solver", replace=True, lnk="text")
    problem = problem_of(graph)
    assert problem.code == "LM121"
    assert "unknown option 'lnk'" in problem.message
    assert "did you mean link='text'?" in problem.hint


# --- a notebook cell that runs again -----------------------------------------------------------


def cell(graph: lm.Graph, prompt: str = "Solve {{ plan }}", **replace: bool) -> None:
    graph.add_text_source("notes", "Be brief.", **replace)
    graph.add_agent("planner", MODEL, prompt="Plan {{ question }} {{ notes }}", **replace)
    graph.add_agent("solver", MODEL, prompt=prompt, **replace)
    graph.connect("notes", "planner", **replace)
    graph.connect("planner", "solver.plan", **replace)
    graph.output("solver", **replace)


def test_a_cell_may_run_again_as_it_is() -> None:
    graph = lm.Graph("cells", inputs=["question"], rounds=1)
    cell(graph)
    once = graph.spec()
    cell(graph)
    assert graph.spec() == once
    graph.compile(facts=FACTS)


def test_a_changed_cell_replaces() -> None:
    graph = lm.Graph("cells", inputs=["question"], rounds=2)
    cell(graph, replace=True)
    first = graph.spec()
    other = lm.Backbone("org/m", dtype="float32")
    graph.add_agent("solver", other, prompt="{{ plan }}!", replace=True)
    graph.add_agent("planner", other, prompt="{{ question }} {{ notes }}", replace=True)
    graph.connect("planner", "solver.plan", link="mlp", replace=True)
    spec = graph.spec()
    assert [agent.name for agent in spec.agents] == [agent.name for agent in first.agents]
    assert spec.agent("solver").prompt == "{{ plan }}!"
    assert [edge.link.kind for edge in spec.edges] == ["soft_token", "mlp"]
    assert [backbone.dtype for backbone in spec.backbones.values()] == ["float32"]
    graph.output("planner", replace=True)
    assert graph.spec().output == ("planner",)
    assert "replace=True" in problem_of(pair().output("planner")).hint


def test_a_changed_agent_without_replace_says_how() -> None:
    graph = pair()
    graph.add_agent("planner", MODEL, prompt="Other {{ question }}")
    problem = problem_of(graph)
    assert problem.code == "LM102"
    assert "graph.add_agent(…, replace=True)" in problem.hint


def test_a_backbone_that_was_declared_by_name_stays() -> None:
    graph = lm.Graph("named", inputs=["question"], rounds=1, backbones={"small": MODEL})
    graph.add_agent("solo", "small", prompt="{{ question }}")
    graph.add_agent("solo", lm.Backbone("org/n"), prompt="{{ question }}", replace=True)
    assert list(graph.spec().backbones) == ["small", "n"]


# --- prompts ----------------------------------------------------------------------------------


def test_single_braces_are_told_where_a_graph_is_refused() -> None:
    graph = pair()
    graph.add_agent("planner", MODEL, prompt="Plan {question}", replace=True)
    assert "write {{ question }}" in problem_of(graph).hint
    graph = pair()
    graph.add_agent("solver", MODEL, prompt="Solve {planner}", replace=True)
    problem = problem_of(graph)
    assert problem.code == "LM106"
    assert "{planner} in single braces" in problem.hint


def test_single_braces_are_a_warning_where_the_graph_is_sound() -> None:
    graph = pair()
    graph.add_agent("solver", MODEL, prompt="Solve { question }: {{ planner }}", replace=True)
    with pytest.warns(UserWarning, match=r"'solver' has \{question\} in single braces") as said:
        graph.compile(facts=FACTS)
    assert len(said) == 1
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for prompt in ('{"question": 1} {{ planner }}', r"\frac{a}{b} {{ planner }} {x}"):
            graph.add_agent("solver", MODEL, prompt=prompt, replace=True)
            graph.compile(facts=FACTS)


def test_a_broken_template_is_one_problem() -> None:
    graph = pair()
    graph.add_agent("planner", MODEL, prompt="Plan\n{{ question }", replace=True)
    problem = problem_of(graph)
    assert (problem.code, problem.message) == ("LM301", "line 2: unexpected '}'")
    assert "'{{ question }'" in problem.hint
    graph = pair()
    graph.add_agent("solver", MODEL, prompt="{{ planner }", replace=True)
    assert problem_of(graph).code == "LM301"
    graph = pair(system="{% if %}")
    assert problem_of(graph).message.startswith("line 1 of the system prompt: ")


# --- types of weights -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "full"),
    [
        *(("bf16", "bfloat16"), ("fp16", "float16"), ("half", "float16"), ("fp32", "float32")),
        *(("float", "float32"), ("double", "float64"), ("torch.bfloat16", "bfloat16")),
        *((torch.bfloat16, "bfloat16"), (torch.float32, "float32"), ("auto", "auto")),
    ],
)
def test_short_names_of_types(short: Any, full: str) -> None:
    given, meant = lm.Backbone("org/m", dtype=short), lm.Backbone("org/m", dtype=full)
    assert given == meant
    assert given.fingerprint == meant.fingerprint
    graph, other = pair(), pair()
    for name, prompt in (("planner", "{{ question }}"), ("solver", "{{ planner }}")):
        graph.add_agent(name, given, prompt=prompt, replace=True)
        other.add_agent(name, meant, prompt=prompt, replace=True)
    assert graph.compile(facts=FACTS).digest == other.compile(facts=FACTS).digest


def test_types_that_do_not_exist() -> None:
    with pytest.raises(lm.GraphError, match=r"(?s)Backbone.dtype.*mean 'bfloat16'"):
        lm.Backbone("org/m", dtype="bfloat61")
    with pytest.raises(lm.GraphError, match="found 'int8'"):
        lm.Backbone("org/m", dtype=torch.int8)
    with pytest.raises(lm.GraphError, match=r"(?s)argument 'dtpe'.*mean 'dtype'"):
        lm.Backbone("org/m", dtpe="bf16")
    with pytest.raises(lm.GraphError, match="required argument 'source' is missing"):
        lm.Backbone(dtype="bf16")
    assert full_dtype(5) == 5


def test_short_names_when_loading() -> None:
    graph = lm.Graph("solo", inputs=["question"], rounds=1)
    graph.add_agent("solo", tiny_backbone("llama", 16), prompt="{{ question }}")
    plan = graph.output("solo").compile()
    assert plan.load(dtype="bf16").backbone_of("solo").dtype is torch.bfloat16
    assert plan.explain("cpu", dtype="bf16") == plan.explain("cpu", dtype="bfloat16")


# --- tools ------------------------------------------------------------------------------------


def lookup(word: str) -> str:
    """A tool of one's own."""
    return word


def test_a_misspelt_tool_does_not_compile() -> None:
    problem = problem_of(pair(tools=["pyhton"]))
    assert (problem.code, problem.path) == ("LM119", "agent solver")
    assert "did you mean 'python'?" in problem.hint
    pair(tools=["python", lookup]).compile(facts=FACTS)


def test_tools_of_ones_own_may_be_given_later() -> None:
    graph = pair(tools=["lookup"])
    graph.compile(facts=FACTS)
    with pytest.raises(lm.GraphError, match=r"LM119.*'lookup'"):
        graph.compile(facts=FACTS, tools_at_load=False)
    graph.tools["lookup"] = lookup
    graph.compile(facts=FACTS, tools_at_load=False)


@pytest.mark.parametrize(
    ("name", "slip"),
    [
        *(("pyhton", True), ("pythn", True), ("pythonn", True), ("pythan", True)),
        *(("python3", False), ("my_python", False), ("py", False), ("lookup", False)),
    ],
)
def test_slips_of_one_letter(name: str, slip: bool) -> None:
    assert _one_slip(name, "python") is slip


def test_a_tool_that_is_missing_when_loading_is_asked_for() -> None:
    graph = lm.Graph("solo", inputs=["question"], rounds=1)
    model = tiny_backbone("llama", 16)
    graph.add_agent("solo", model, prompt="{{ question }}", tools=["lookup"])
    plan = graph.output("solo").compile()
    with pytest.raises(lm.UnknownNameError, match=r'pass tools=\{"lookup": function\}'):
        plan.load()
    plan.load(tools={"lookup": lookup})


# --- graph files ------------------------------------------------------------------------------

TEAM = """\
name: math-team
inputs: [question]
runds: 2
backbones:
  small: {source: "package:latentmas/demo/backbones/planner", dtpe: bf16}
  m-1.7b:
    source: package:latentmas/demo/backbones/critic
    dtype: bfloat61
agents:
- name: planner
  backbone: small
  promt: |
    Plan.
    Question: {{ question }}
- name: critic
  backbone: smal
  prompt: |
    Improve
    {{ planner
  tools: [pyhton]
- name: solver
  backbone: m-1.7b
  prompt_file: solver.jinja
  latent_steps: many
edges:
- {source: planner, target: critic}
- {source: critic, target: solver}
- {source: solver, target: planner}
- source: planner
  target: solver
  slot: plan
  link: {kind: recursive, options: {expnsion: 2}}
output: solvr
"""


@pytest.fixture
def team(tmp_path: Path) -> Path:
    (tmp_path / "solver.jinja").write_text("Plan {{ critic }}\n{{ plan }}\n{{ y }}\n")
    (tmp_path / "team.yaml").write_text(TEAM)
    return tmp_path / "team.yaml"


def test_all_problems_of_a_file_come_at_once_with_their_lines(team: Path) -> None:
    with pytest.raises(lm.GraphError) as caught:
        lm.Graph.load(team)
    found = {
        (p.code, p.path): p.location.removeprefix(f"{team.parent}/") for p in caught.value.problems
    }
    assert found == {
        ("LM100", "runds"): "team.yaml:3",
        ("LM100", "backbones.small.dtpe"): "team.yaml:5",
        ("LM100", "backbones.m-1.7b.dtype"): "team.yaml:8",
        ("LM100", "agents.0.promt"): "team.yaml:12",
        ("LM101", "agent critic"): "team.yaml:16",
        ("LM301", "agent critic"): "team.yaml:19",
        ("LM119", "agent critic"): "team.yaml:20",
        ("LM103", "agent solver"): "solver.jinja:3",
        ("LM100", "agents.2.latent_steps"): "team.yaml:24",
        ("LM106", "edge solver->planner"): "team.yaml:28",
        ("LM110", "graph"): "team.yaml:28",
        ("LM121", "edge planner->solver.plan"): "team.yaml:29",
        ("LM111", "graph"): "team.yaml:33",
    }
    assert f"         at {team}:28\n" in str(caught.value)


def test_fixes_are_in_the_language_of_the_user(team: Path) -> None:
    with pytest.raises(lm.GraphError) as caught:
        lm.Graph.load(team)
    hints = {problem.code: problem.hint for problem in caught.value.problems}
    assert hints["LM110"] == "add `delay: 1` to the edge from solver to planner"
    assert "`expansion: 2`" in hints["LM121"]
    assert "--plugin FILE.py" in hints["LM119"]
    assert not any("graph.connect(" in hint or "graph.feedback(" in hint for hint in hints.values())
    graph = pair()
    graph.connect("solver", "planner.question")
    with pytest.raises(lm.GraphError) as built:
        graph.compile(facts=FACTS)
    assert 'graph.feedback("solver", "planner")' in str(built.value)
    assert all(not problem.location for problem in built.value.problems)


def test_a_file_that_is_sound_apart_from_its_graph_has_lines_when_compiling(team: Path) -> None:
    team.write_text(
        "inputs: [question, topic]\nrounds: 1\n"
        "backbones: {m: 'package:latentmas/demo/backbones/planner'}\n"
        "agents:\n- {name: solo, backbone: m, prompt: 'Q {{ question }}'}\noutput: solo\n"
    )
    graph = lm.Graph.load(team)
    for broken in (graph, graph.copy(), graph.as_text()):
        with pytest.raises(lm.GraphError) as caught:
            broken.compile()
        (problem,) = caught.value.problems
        assert (problem.code, problem.location) == ("LM115", f"{team}:1")
        assert problem.to_dict()["location"] == f"{team}:1"


def test_code_of_a_repository_is_not_run_to_find_further_problems(
    team: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TEAM.replace("dtpe: bf16", "trust_remote_code: true")
    team.write_text(text)
    monkeypatch.setattr(lm.Graph, "compile", lambda self: pytest.fail("compiled"))
    with pytest.raises(lm.GraphError) as caught:
        lm.Graph.load(team)
    assert {problem.code for problem in caught.value.problems} == {"LM100"}


@pytest.mark.parametrize(
    ("old", "new", "line", "hint"),
    [
        ("{source: planner, target: critic}", "{from: planner, to: critic}", 26, "'source'?"),
        ("  backbone: smal\n", "  model: small\n", 16, "did you mean 'backbone'?"),
        ("target: critic}", "target: critic, link: mlp}", 26, "write `{kind: mlp}`"),
    ],
)
def test_words_of_other_libraries(team: Path, old: str, new: str, line: int, hint: str) -> None:
    assert old in TEAM
    team.write_text(TEAM.replace(old, new).replace("prompt_file: solver.jinja\n", "prompt: x\n"))
    with pytest.raises(lm.GraphError) as caught:
        lm.Graph.load(team)
    (problem,) = (problem for problem in caught.value.problems if hint in problem.hint)
    assert problem.location == f"{team}:{line}"


def test_values_on_which_others_depend_end_the_search(team: Path) -> None:
    team.write_text(TEAM.replace("target: critic}", "target: critic, delay: soon}"))
    with pytest.raises(lm.GraphError) as caught:
        lm.Graph.load(team)
    assert {problem.code for problem in caught.value.problems} == {"LM100"}


# --- the command line -------------------------------------------------------------------------


def call(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def test_check_tells_lines(team: Path) -> None:
    problems = json.loads(call("check", team, "--json", code=1).stdout)["problems"]
    assert f"{team}:3" in [problem["location"] for problem in problems]
    assert f"at {team}:3" in call("check", team, code=1).stderr


def test_the_command_line_knows_that_no_tool_will_be_given(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(
        "inputs: [question]\nrounds: 1\n"
        "backbones: {m: 'package:latentmas/demo/backbones/planner'}\n"
        "agents:\n"
        "- {name: solo, backbone: m, prompt: '{question} {{ question }}', tools: [lookup]}\n"
        "output: solo\n"
    )
    assert "unknown tool 'lookup'" in call("check", path, code=1).stderr
    path.write_text(path.read_text().replace("{question} {{ question }}", "{{ question }}"))
    path.write_text(path.read_text().replace(", tools: [lookup]", ""))
    assert "fine: " in call("check", path).stdout


def test_warnings_are_notes_on_the_command_line(tmp_path: Path) -> None:
    graph = lm.Graph("pair", inputs=["question"], rounds=1)
    model = lm.Backbone("package:latentmas/demo/backbones/planner")
    graph.add_agent("planner", model, prompt="Plan {{ question }}")
    graph.add_agent("solver", model, prompt="Solve {question} {{ planner }}")
    graph.connect("planner", "solver")
    path = graph.output("solver").save(tmp_path / "g.yaml")
    done = call("check", path)
    assert "warning: the prompt of 'solver' has {question} in single braces" in done.stderr


def test_help_begins_with_what_works() -> None:
    text = " ".join(call("--help").stdout.split())
    assert "Start with `latentmas demo`" in text
    assert "latentmas run my-team.yaml" not in text


def test_a_misspelt_preset_is_told() -> None:
    said = call("plan", "sequental_light", code=1).stderr
    assert "did you mean the preset 'sequential_light'?" in said


def test_an_untrained_team_says_so_when_it_runs_and_not_when_it_trains(tmp_path: Path) -> None:
    graph = lm.Graph("pair", inputs=["question"], rounds=1, latent_steps=1)
    model = tiny_backbone("llama", 16)
    graph.add_agent("planner", model, prompt="Plan {{ question }}", inner="recursive")
    graph.add_agent("solver", model, prompt="Solve {{ planner }}")
    graph.connect("planner", "solver", link="recursive")
    path = graph.output("solver").save(tmp_path / "g.yaml")
    run = call("run", path, "x", "--max-new-tokens", 1).stderr
    assert "links are untrained (seed 0), so answers will be empty or meaningless" in run
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "x", "answer": "y"}\n')
    out = ("--output-dir", tmp_path / "out", "--steps", 1)
    trained = call("train", "inner", path, "--data", rows, *out).stderr
    assert "meaningless" not in trained
    again = call("run", tmp_path / "out" / "team", "x", "--max-new-tokens", 1).stderr
    assert "untrained" not in again
    graph.add_agent("planner", model, prompt="Plan {{ question }}", replace=True)
    graph.connect("planner", "solver", replace=True)  # now of the default kind
    new = call("run", graph.save(tmp_path / "new.yaml"), "x", "--max-new-tokens", 1).stderr
    assert "untrained" not in new


def test_sampling_options_without_sampling_are_refused() -> None:
    graph = lm.Graph("solo", inputs=["question"], rounds=1)
    graph.add_agent("solo", tiny_backbone("llama", 16), prompt="{{ question }}")
    system = graph.output("solo").compile().load()
    for options in ({"temperature": 0.5}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}):
        (name,) = options
        with pytest.raises(lm.LatentMASError, match=f"{name} would have no effect.*do_sample=True"):
            system.run(["x"], **options)
        assert system.run(["x"], do_sample=True, max_new_tokens=1, **options).texts
    with pytest.raises(lm.LatentMASError, match=r"temperature is 0.*most likely token"):
        system.run(["x"], temperature=0.0)


def test_a_greedy_run_that_was_recorded_with_a_temperature_can_be_repeated(tmp_path: Path) -> None:
    graph = lm.Graph("solo", inputs=["question"], rounds=1)
    graph.add_agent("solo", tiny_backbone("llama", 16), prompt="{{ question }}")
    system = graph.output("solo").compile().load()
    path = tmp_path / "run.json"
    system.run(["x"], max_new_tokens=2, manifest=path)
    told = json.loads(path.read_text())
    assert told["arguments"]["do_sample"] is False
    told["version"], told["arguments"]["temperature"] = 2, 0.7
    path.write_text(json.dumps(told))
    assert lm.rerun(path, team=system).equal
