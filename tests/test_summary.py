"""Plans as text: the summary, and the differences of two plans."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

import latentmas as lm

GOLDEN: dict[str, Any] = runpy.run_path(str(Path(__file__).parent / "golden" / "rewrite.py"))
WIDE, SLIM, FACTS = GOLDEN["WIDE"], GOLDEN["SLIM"], GOLDEN["FACTS"]
PLANS: dict[str, lm.Plan] = GOLDEN["plans"]()


def plan_of(**changes: Any) -> lm.Plan:
    arguments = {"planner": WIDE, "critic": SLIM, "solver": WIDE} | changes
    return lm.templates.sequential(**arguments).compile(facts=FACTS)


def long_plan() -> lm.Plan:
    """Many experts with long names, on one backbone."""
    experts = {f"expert_for_the_field_of_study_number_{i}": WIDE for i in range(20)}
    return lm.templates.mixture(experts=experts, summarizer=WIDE).compile(facts=FACTS)


# --- summary ----------------------------------------------------------------------------------


def test_the_summary_says_what_is_loaded_trained_and_run() -> None:
    text = PLANS["mixture"].summary()
    assert text.startswith("mixture: 3 rounds, 4 agents, 27 steps, ")
    assert "loaded once for math, science" in text
    assert re.search(r"code +wide +32 +feedback ← summarizer \(next round\), question", text)
    assert "rounds 1-2  [math | code | science] ▸ summarizer\n" in text
    assert "round 3     [math | code | science] ▸ summarizer (decodes the answer)" in text


@pytest.mark.parametrize("name", sorted(PLANS))
def test_the_summary_has_every_link_with_its_exact_size(name: str) -> None:
    plan = PLANS[name]
    text = plan.summary()
    for link in plan.links:
        line = next(line for line in text.splitlines() if line.strip().startswith(f"{link.id} "))
        assert f"{link.n_parameters:,}" in line
        assert line.endswith("yes")
    assert re.search(rf"total +{plan.n_parameters:,}$", text, re.MULTILINE)


def test_the_summary_says_who_speaks_and_who_shares() -> None:
    graph = lm.templates.distillation(expert=WIDE, learner=WIDE, link="text")
    text = graph.compile(facts=FACTS).summary()
    assert "expert->learner.plan: not differentiable" in text
    assert "expert (writes text)" in text
    same = {"kind": "recursive", "share": "both"}
    pair = lm.Graph("pair", inputs=["q"], rounds=1)
    for name, prompt in (("one", "{{ q }}"), ("two", "{{ one }}"), ("three", "{{ two }}")):
        pair.add_agent(name, WIDE, prompt=prompt, inner=same)
    pair.connect("one", "two")
    pair.connect("two", "three")
    assert re.search(
        r"shared\.both .* one, two", pair.output("three").compile(facts=FACTS).summary()
    )


@pytest.mark.parametrize("plan", [*PLANS.values(), long_plan()], ids=lambda p: p.graph.name)
def test_the_summary_is_plain_and_fits_a_terminal(plan: lm.Plan) -> None:
    for line in plan.summary().splitlines():
        assert len(line) <= 100
        assert line.isprintable()
        assert line == line.rstrip()


def test_brackets_and_colours_in_names_stay_text() -> None:
    graph = lm.Graph("[red]x[/]:smile:\x1b[31m", inputs=["q"], rounds=1)
    graph.add_agent("solo", lm.Backbone("example/wide"), prompt="{{ q }}")
    text = graph.output("solo").compile(facts=FACTS).summary()
    assert text.startswith(
        "[red]x[/]:smile:\ufffd[31m: 1 round, 1 agent, 1 step, 0 link parameters"
    )
    assert "Links\n  none" in text


# --- differences ------------------------------------------------------------------------------


def test_equal_plans_do_not_differ() -> None:
    for name, plan in PLANS.items():
        assert plan.diff(lm.Plan.from_json(plan.to_json())) == [], name


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"rounds": 4}, "rounds: 3 -> 4"),
        ({"rounds": 4}, "steps: 17 -> 23"),
        ({"rounds": 1}, "edge solver->planner.feedback: removed"),
        ({"latent_steps": 8}, "latent_steps: 32 -> 8"),
        ({"name": "x"}, "name: sequential -> x"),
        ({"inputs": ["question", "hint"]}, "inputs: [question] -> [question, hint]"),
        ({"critic": WIDE}, "agent critic: backbone slim -> wide"),
        ({"critic": WIDE}, "backbone slim: removed"),
        ({"critic": WIDE}, "link inner.critic: in_dim 1536 -> 2048"),
        ({"link": "linear"}, "edge planner->critic.plan: link.kind soft_token -> linear"),
        ({"link": "linear"}, "link outer.planner->critic.plan: kind soft_token -> linear"),
        ({"max_new_tokens": 9}, "agent solver: max_new_tokens none -> 9"),
        ({"prompts": {"critic": "{{ plan }} {{ question }}"}}, "agent critic: prompt changed"),
    ],
)
def test_a_difference_has_its_line(changes: dict[str, Any], line: str) -> None:
    assert line in plan_of().diff(plan_of(**changes))


def test_differences_tell_added_from_removed() -> None:
    two, three = (
        lm.templates.mixture(experts=dict.fromkeys(names, SLIM), summarizer=WIDE).compile(
            facts=FACTS
        )
        for names in ("ab", "abc")
    )
    assert "agent c: added" in two.diff(three)
    assert "agent c: removed" in three.diff(two)
    assert "link inner.c: added" in two.diff(three)


def test_no_difference_is_passed_over() -> None:
    """Whatever changes the digest has a line, even an order or the type of a number."""
    plan = PLANS["sequential"]
    graph, (first, *rest) = plan.graph, plan.links
    agents = graph.agents
    changed = [
        {"graph": graph.model_copy(update={"agents": agents[::-1]})},
        {"graph": graph.model_copy(update={"edges": graph.edges[::-1]})},
        {"graph": graph.model_copy(update={"backbones": {**graph.backbones, "spare": WIDE}})},
        {"links": plan.links[::-1]},
        {"links": (first.model_copy(update={"options": {"expansion": 1.0}}), *rest)},
        {"links": (first.model_copy(update={"options": {"expansion": 1}}), *rest)},
        {"links": (first.model_copy(update={"options": {"expansion": True}}), *rest)},
        {"steps": (plan.steps[0].model_copy(update={"group": 9}), *plan.steps[1:])},
    ]
    variants = [plan, *(plan.model_copy(update=change) for change in changed)]
    for one in variants:
        for other in variants:
            assert bool(one.diff(other)) == (one.digest != other.digest)
