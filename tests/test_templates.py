"""Templates: what they declare, how they compile, and the examples beside them."""

from __future__ import annotations

import importlib
import inspect
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.demo import task
from latentmas.errors import CODES
from latentmas.prompts.render import render_prompt
from latentmas.templates import PRESETS

HERE = Path(__file__).parent
GOLDEN: dict[str, Any] = runpy.run_path(str(HERE / "golden" / "rewrite.py"))
WIDE, SLIM, FACTS = GOLDEN["WIDE"], GOLDEN["SLIM"], GOLDEN["FACTS"]
STEPS = {"sequential": 17, "mixture": 27, "distillation": 11, "deliberation": 11}
NAMES = lm.templates.names()


def make(name: str, /, **changes: Any) -> lm.Graph:
    """A template with a backbone for every argument that must be given."""
    template = lm.templates.get(name)
    needed = {
        key: {"math": SLIM, "code": WIDE, "science": SLIM}
        if "Mapping" in str(p.annotation)
        else WIDE
        for key, p in inspect.signature(template).parameters.items()
        if "Backbone" in str(p.annotation)
    }
    return template(**(needed | changes))


def compiled(name: str, /, **changes: Any) -> lm.Plan:
    graph = make(name, **changes)
    return graph.compile(facts=facts_of(graph))


def facts_of(graph: lm.Graph) -> dict[str, lm.BackboneInfo]:
    """Facts of the golden backbones; those of presets ship with the package."""
    sources = {backbone.source for backbone in graph.spec().backbones.values()}
    return {source: info for source, info in FACTS.items() if source in sources}


# --- the package ------------------------------------------------------------------------------


def test_the_four_topologies_are_listed() -> None:
    assert set(STEPS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_template_is_a_function_of_the_package_even_after_its_file_was_imported(
    name: str,
) -> None:
    importlib.import_module(f"latentmas.templates.{PRESETS.get(name, name)}")
    assert getattr(lm.templates, name) is lm.templates.get(name)
    assert inspect.isfunction(getattr(lm.templates, name))


def test_importing_from_the_package_gives_the_function() -> None:
    from latentmas.templates import sequential

    assert sequential is lm.templates.sequential


def test_an_unknown_template_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(AttributeError, match="sequentiel"):
        _ = lm.templates.sequentiel
    with pytest.raises(lm.UnknownNameError, match="did you mean 'sequential'"):
        lm.templates.get("sequentiel")


def test_templates_need_no_torch() -> None:
    code = (
        "import sys, latentmas as lm; b = lm.Backbone('x');"
        "lm.templates.mixture(experts={'a': b}, summarizer=b).spec(); lm.templates.names();"
        "assert not {'torch', 'transformers', 'networkx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- every template ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_template_takes_keywords_and_explains_itself(name: str) -> None:
    template = lm.templates.get(name)
    kinds = {p.kind for p in inspect.signature(template).parameters.values()}
    assert kinds in ({inspect.Parameter.KEYWORD_ONLY}, {inspect.Parameter.VAR_KEYWORD})
    text = inspect.getdoc(template) or ""
    for section in ("Reference:", "Inputs:", "Relations:", "Example:"):
        assert f"\n{section}\n" in text, section
    for parameter in inspect.signature(template).parameters:
        assert f"    {parameter}: " in text, parameter


COMMON = {
    "rounds": 3,
    "latent_steps": 32,
    "name": "the template's",
    "link": None,
    "inner": None,
    "inputs": ("question",),
    "task": "math",
    "prompts": None,
    "max_new_tokens": None,
}
"""Options of every template and their defaults, in order; agents come before them."""


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(lm.templates.PRESETS)))
def test_templates_have_the_same_options_in_the_same_order(name: str) -> None:
    template = lm.templates.get(name)
    parameters = list(inspect.signature(template).parameters.values())
    options = {p.name: p.default for p in parameters[-len(COMMON) :]}
    assert list(options) == list(COMMON)
    assert options == COMMON | {"name": name}
    nothing = make(name, link=None, inner=None).spec()
    assert nothing == make(name).spec()


@pytest.mark.parametrize("name", NAMES)
def test_a_template_equals_its_graph_file(name: str, tmp_path: Path) -> None:
    graph = make(name)
    assert lm.Graph.load(graph.save(tmp_path / "team.yaml")) == graph


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_a_template_compiles_for_any_number_of_rounds(name: str, rounds: int) -> None:
    plan = compiled(name, rounds=rounds)
    assert plan.graph.rounds == rounds
    assert any(edge.delay for edge in plan.graph.edges) == (rounds > 1)
    text = all(edge.link.kind == "text" for edge in plan.graph.edges)
    assert text or [step.op for step in plan.steps].count("decode") == 1
    assert all(link.differentiable for link in plan.links if link.role == "outer")


@pytest.mark.parametrize("name", NAMES)
def test_the_text_twin_of_a_template_compiles(name: str) -> None:
    graph = make(name).as_text()
    plan = graph.compile(facts=facts_of(graph))
    assert not [link for link in plan.links if link.role == "outer"]


@pytest.mark.parametrize("name", NAMES)
def test_fields_link_and_numbers_are_the_users(name: str) -> None:
    plan = compiled(
        name,
        inputs=["problem", "known_facts"],
        latent_steps=5,
        link="linear",
        inner="mlp",
        name="mine",
        max_new_tokens=7,
    )
    assert plan.graph.name == "mine"
    assert plan.graph.inputs == ("problem", "known_facts")
    assert {link.kind for link in plan.links} == {"linear", "mlp"}
    assert plan.graph.agent(plan.output).max_new_tokens == 7
    for agent in plan.graph.agents:
        assert plan.graph.steps_of(agent) == 5
        assert "Problem: {{ problem }}\nKnown facts: {{ known_facts }}" in agent.prompt


def test_one_field_may_be_given_as_a_name() -> None:
    assert compiled("distillation", inputs="puzzle").graph.inputs == ("puzzle",)


# --- each topology ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(STEPS))
def test_three_rounds_have_the_steps_of_the_method(name: str) -> None:
    plan = compiled(name, rounds=3)
    assert len(plan.steps) == STEPS[name]


def test_sequential_rolls_eight_times_and_hands_over_eight_times() -> None:
    ops = [step.op for step in compiled("sequential", rounds=3).steps]
    assert (ops.count("rollout"), ops.count("transfer"), ops.count("decode")) == (8, 8, 1)
    assert ops[-1] == "decode"


@pytest.mark.parametrize(
    ("name", "agent", "order"),
    [
        ("sequential", "planner", ["question", "feedback"]),
        ("sequential", "critic", ["question", "plan"]),
        ("sequential", "solver", ["plan", "question"]),
        ("mixture", "code", ["feedback", "question"]),
        ("mixture", "summarizer", ["math", "code", "science", "question"]),
        ("distillation", "expert", ["feedback", "question"]),
        ("distillation", "learner", ["plan", "question"]),
        ("deliberation", "reflector", ["feedback", "question"]),
        ("deliberation", "toolcaller", ["reflection", "question"]),
    ],
)
def test_slots_stand_where_the_method_has_them(name: str, agent: str, order: list[str]) -> None:
    prompt = make(name).spec().agent(agent).prompt
    places = [prompt.index(f"{{{{ {slot} }}}}") for slot in order]
    assert places == sorted(places)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_mixture_takes_any_number_of_experts(count: int) -> None:
    experts = {f"field_{i}": SLIM for i in range(count)}
    plan = compiled("mixture", experts=experts, rounds=2)
    assert len(plan.graph.edges) == 2 * count
    assert {step.group for step in plan.turns() if step.agent in experts} == {0}


def test_mixture_without_experts_says_what_to_give() -> None:
    with pytest.raises(lm.GraphError, match="name at least one"):
        make("mixture", experts={})


# --- prompts ----------------------------------------------------------------------------------


def test_a_prompt_may_be_replaced_and_the_rest_stays() -> None:
    graph = make("sequential", prompts={"critic": "{{ plan }} {{ question }} Be brief."}).spec()
    usual = make("sequential").spec()
    assert graph.agent("critic").prompt == "{{ plan }} {{ question }} Be brief."
    assert graph.agent("critic").system == usual.agent("critic").system
    assert graph.agent("planner") == usual.agent("planner")


def test_a_system_turn_may_be_replaced_alone() -> None:
    own = {"learner": {"system": "Answer in Latin."}}
    agent = make("distillation", prompts=own).spec().agent("learner")
    assert agent.system == "Answer in Latin."
    assert "{{ plan }}" in agent.prompt


def test_a_prompt_for_an_unknown_agent_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(lm.UnknownNameError, match="unknown agent 'solvr'; did you mean 'solver'"):
        make("sequential", prompts={"solvr": "x"})
    with pytest.raises(lm.UnknownNameError, match="did you mean 'system'"):
        make("sequential", prompts={"solver": {"systen": "x"}})


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(STEPS))
def test_plans_are_what_they_were(name: str) -> None:
    """Byte for byte; `python tests/golden/rewrite.py` after a change that is meant."""
    plan: lm.Plan = GOLDEN["plans"]()[name]
    kept = (GOLDEN["FOLDER"] / f"{name}.json").read_text(encoding="utf-8")
    assert plan.to_json() + "\n" == kept
    assert lm.Plan.from_json(kept) == plan


def tiny_facts() -> dict[str, lm.BackboneInfo]:
    shapes = {"planner": ("qwen3", 64), "critic": ("llama", 96), "solver": ("qwen2", 48)}
    return {
        key: lm.BackboneInfo(model_type=kind, hidden_size=width, vocab_size=64, num_layers=2)
        for key, (kind, width) in shapes.items()
    }


def test_the_example_team_compiles() -> None:
    plan = lm.Graph.load(HERE.parent / "examples" / "team.yaml").compile(facts=tiny_facts())
    assert [agent.name for agent in plan.graph.agents] == ["planner", "critic", "solver"]
    assert plan.output == "solver"
    assert {edge.slot for edge in plan.graph.edges} == {"planner", "critic", "feedback"}


@pytest.mark.parametrize("slots", [(), ("planner", "critic", "feedback")])
def test_the_example_team_asks_what_its_models_were_trained_on(slots: tuple[str, ...]) -> None:
    """Round 1 with text in the slots' place, and a later round."""
    row = task.make_rows(1, seed=0)[0]
    texts = {slot: f"<{slot}>" for slot in slots} | {"planner": "<planner>", "critic": "<critic>"}
    for agent in lm.Graph.load(HERE.parent / "examples" / "team.yaml").spec().agents:
        usual = agent.model_copy(update={"prompt": task.PROMPTS[agent.name]})
        assert render_prompt(agent, row | texts) == render_prompt(usual, row | texts)


def test_the_broken_example_reports_every_mistake_at_once() -> None:
    path = HERE.parent / "examples" / "broken.yaml"
    with pytest.raises(lm.GraphError) as caught:
        lm.Graph.load(path).compile(facts=tiny_facts())
    found = {problem.code for problem in caught.value.problems}
    announced = {code for code in CODES if f"{code}:" in path.read_text(encoding="utf-8")}
    assert found == announced
    assert len(found) >= 8


# --- the paper's systems ----------------------------------------------------------------------

PUBLISHED = {
    "sequential_light": {
        "inner": [8.40, 8.40, 4.73],
        "outer": [20.99, 14.17, 17.84],
        "outer in all": 53.0,
    },
    "sequential_scaled": {"inner": [13.12, 18.89, 13.12], "outer in all": 112.0},
    "mixture": {"outer in all": 166.3},
    "distillation": {"outer": [44.59, 65.04]},
    "deliberation": {"outer in all": 65.6},
}
"""Millions of weights."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_plan_the_papers_systems_from_shipped_facts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", None)  # nothing is looked up
    plan = getattr(lm.templates, name)().compile()
    for what, numbers in PUBLISHED[name].items():
        role, _, total = what.partition(" ")
        found = [link.n_parameters / 1e6 for link in plan.links if link.role == role]
        if total:
            assert round(sum(found), 1) == numbers
        else:
            assert [round(number, 2) for number in found] == numbers
    assert [step.op for step in plan.steps].count("decode") == 1
    assert (plan.graph.rounds, plan.graph.latent_steps) == (3, 32)


def test_deliberation_holds_one_backbone() -> None:
    plan = lm.templates.deliberation().compile()
    assert [b.agents for b in plan.backbones.values()] == [("reflector", "toolcaller")]
    assert "loaded once for reflector, toolcaller" in plan.summary()
    assert plan.graph.agent("toolcaller").tools == ("python", "search")


@pytest.mark.parametrize("name", [n for n in NAMES if n not in PRESETS])
def test_tasks_change_how_the_answer_ends(name: str) -> None:
    prompts = {}
    for task_name, ending in {
        "math": "\\boxed{}",
        "code": "```python block",
        "choice": "\\boxed{A}",
        "search": "a few words, in \\boxed{}",
    }.items():
        spec = make(name, task=task_name).spec()
        prompts[task_name] = [agent.prompt for agent in spec.agents]
        assert ending in spec.agent(spec.output[0]).prompt
    assert len({str(prompt) for prompt in prompts.values()}) == 4
    with pytest.raises(lm.UnknownNameError, match="did you mean 'math'"):
        make(name, task="maths")


def test_presets_take_the_arguments_of_their_template() -> None:
    graph = lm.templates.sequential_light(rounds=2, critic=SLIM, task="code")
    assert graph.spec().rounds == 2
    assert graph.spec().backbones["slim"] == SLIM
    with pytest.raises(TypeError, match="no argument 'plannr'; did you mean 'planner'"):
        lm.templates.sequential_light(plannr=SLIM)


def test_the_plan_command_takes_a_preset() -> None:
    done = CliRunner().invoke(app, ["plan", "mixture"])
    assert done.exit_code == 0
    assert "221,418,496" in done.output
    needy = CliRunner().invoke(app, ["plan", "sequential"])
    assert needy.exit_code == 1
    assert "latentmas new my-team --template sequential" in needy.output
