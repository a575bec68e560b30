"""What links are where none is named, in Python, in graph files, in templates and in presets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import latentmas as lm
from latentmas.backbones import families
from latentmas.backbones.auto import Auto
from latentmas.spec import DEFAULT_LINK
from tests.teams import QUESTIONS, load64, tiny

NAMED: dict[str, Any] = {"link": "soft_token", "inner": "soft_token"}
PAPER = ["sequential_light", "sequential_scaled", "mixture", "distillation", "deliberation"]


def pair(inner: dict[str, Any] | None = None, **edge: Any) -> lm.Graph:
    graph = lm.Graph("pair", inputs=["question"], rounds=2, latent_steps=3)
    small, wide = tiny("llama", 16), tiny("qwen3", 32, seed=1)
    own = inner or {}
    back = "{% if back %}{{ back }}{% endif %}{{ question }}"
    graph.add_agent("one", small, prompt=back, **own)
    graph.add_agent("two", wide, prompt="{{ one }} {{ question }}", max_new_tokens=4, **own)
    graph.connect("one", "two", **edge)
    graph.feedback("two", "one.back", **edge)
    return graph.output("two")


def kinds(graph: lm.Graph) -> set[str]:
    spec = graph.spec()
    return {agent.inner.kind for agent in spec.agents} | {edge.link.kind for edge in spec.edges}


def test_a_kind_that_is_named_without_options_is_the_default() -> None:
    """Edges learn a correction, agents have no weights; whether the kind is named or not."""
    plain, named = pair(), pair({"inner": "soft_token"}, link="soft_token")
    assert DEFAULT_LINK == "soft_token" and plain == named
    plan = plain.compile()
    assert plan == named.compile() and plan.digest == named.compile().digest
    for link in plan.links:
        assert link.kind == "soft_token" and link.options["residual"] is (link.role == "outer")
        assert bool(link.n_parameters) == (link.role == "outer") and link.differentiable


def test_the_correction_can_be_left_out_and_put_into_agents() -> None:
    inner = {"inner": {"kind": "soft_token", "options": {"residual": True}}}
    plan = pair(inner, residual=False).compile()
    found = {link.role: link.n_parameters > 0 for link in plan.links}
    assert found == {"inner": True, "outer": False}


def test_graph_files_and_python_agree(tmp_path: Path) -> None:
    graph = pair()
    text = graph.save(tmp_path / "team.yaml").read_text(encoding="utf-8")
    assert text.count("kind: soft_token") == 4  # named, whatever the default may be one day
    assert lm.Graph.load(tmp_path / "team.yaml") == graph
    (tmp_path / "named.yaml").write_text(
        text.replace("    kind: soft_token\n", "    kind: soft_token\n    options: {}\n")
    )
    assert lm.Graph.load(tmp_path / "named.yaml").compile() == graph.compile()
    assert lm.Plan.from_json(graph.compile().to_json()) == graph.compile()
    paper = pair({"inner": "recursive"}, link="recursive")
    assert lm.Graph.load(paper.save(tmp_path / "paper.yaml")) == paper
    assert kinds(paper) == {"recursive"}


@pytest.mark.parametrize("name", ["sequential", "mixture", "distillation", "deliberation"])
def test_templates_on_models_of_yours_have_the_default(name: str) -> None:
    model = tiny("llama", 16)
    roles: dict[str, dict[str, Any]] = {
        "sequential": dict.fromkeys(("planner", "critic", "solver"), model),
        "mixture": {"experts": {"a": model}},
        "distillation": {"learner": model},  # one model of yours is enough
        "deliberation": {"reflector": model},
    }
    template = lm.templates.get(name)
    assert kinds(template(**roles[name])) == {"soft_token"}
    assert template(**roles[name]) == template(**roles[name], **NAMED)
    assert kinds(template(**roles[name], link="linear")) == {"linear", "soft_token"}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_teams_have_the_papers_links(name: str) -> None:
    assert kinds(lm.templates.get(name)()) == {"recursive"}
    assert kinds(lm.templates.get(name)(**NAMED)) == {"soft_token"}


def test_an_untrained_team_sends_the_words_that_its_sender_would_say(tmp_path: Path) -> None:
    """At a low temperature, a message holds the likeliest words, up to the end of the turn.

    Saved and loaded, the team says the same.
    """
    cold = {"inner": {"kind": "soft_token", "options": {"temperature": 1e-5}}}
    graph = lm.Graph("line", inputs=["question"], rounds=1, latent_steps=3)
    model = tiny("llama", 16)
    graph.add_agent("one", model, prompt="{{ question }}", **cold)
    graph.add_agent("two", model, prompt="{{ one }} {{ question }}", max_new_tokens=5)
    graph.connect("one", "two", temperature=1e-5)
    system = load64(graph.output("two"))
    run = system.run(QUESTIONS, record=("messages", "states"))
    backbone = system.backbone_of("one")
    ids_BK = backbone.logits(run.states["round1.one"]).argmax(dim=-1)
    words_BKD = backbone.embed(ids_BK).double()
    message_BKD = run.messages["round1.one->two"]
    sent_BK = message_BKD.abs().sum(dim=-1) > 0
    assert sent_BK.any()
    assert torch.allclose(message_BKD[sent_BK], words_BKD[sent_BK], atol=1e-6)
    again = lm.System.from_pretrained(system.save_pretrained(tmp_path / "team"), dtype="float64")
    assert again.double().run(QUESTIONS).texts == run.texts


@pytest.mark.parametrize(
    ("edge", "message", "fix"),
    [
        ({"init": "ridge"}, "kind 'soft_token' has no initialisation 'ridge'", 'link="recursive"'),
        ({"norm": "embedding"}, "cannot scale its output", 'norm="none"'),
        ({"residual": "projection"}, "option residual", "temperature, top_k, residual"),
    ],
)
def test_options_of_the_papers_links_are_refused_with_the_way_out(
    edge: dict[str, Any], message: str, fix: str
) -> None:
    with pytest.raises(lm.GraphError, match="LM121") as caught:
        pair(**edge).compile()
    assert message in caught.value.problems[0].message and fix in caught.value.problems[0].hint


@pytest.fixture
def without(request: pytest.FixtureRequest) -> Any:
    """A family whose models lack some parts, registered for one test."""

    def register(**provides: Any) -> str:
        name = "lacking_test"
        families.register(name)(type("Lacking", (Auto,), {"__doc__": "x", **provides}))
        request.addfinalizer(lambda: families._entries.pop(name, None))
        return name

    return register


@pytest.mark.parametrize(
    ("lacks", "paths"),
    [
        ("head", {"inner link of two", "edge two->one.back"}),
        ("embeddings", {"inner link of two", "edge one->two.one"}),
        ("tokenizer", {"inner link of two", "edge two->one.back", "edge one->two.one"}),
    ],
)
def test_backbones_that_lack_what_the_kind_needs_do_not_compile(
    lacks: str, paths: set[str], without: Any
) -> None:
    name = without(provides=frozenset({"head", "embeddings", "tokenizer"}) - {lacks})

    def team(**changes: Any) -> lm.Graph:
        spec = pair(**changes).spec()
        key = spec.agent("two").backbone
        changed = spec.backbones[key].model_copy(update={"family": name})
        return lm.Graph.from_spec(spec.replace(backbones={**spec.backbones, key: changed}))

    with pytest.raises(lm.GraphError) as caught:
        team().compile()
    assert {problem.path for problem in caught.value.problems} == paths
    for problem in caught.value.problems:
        word = "inner" if problem.path.startswith("inner") else "link"
        assert problem.code == "LM124" and lacks in problem.message
        assert f'{word}="recursive"' in problem.hint
        assert f"{word}: {{kind: recursive}}" in problem.file_hint
    team(inner={"inner": "recursive"}, link="recursive").compile()


def test_explain_summary_and_drawing_take_the_default(tmp_path: Path) -> None:
    plan = pair().compile()
    assert "soft_token" in plan.summary() and plan.explain("cpu").rows
    assert plan.draw(tmp_path / "team.svg").read_text(encoding="utf-8").startswith("<svg")


def test_a_new_team_learns_from_answers_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`lm.train` runs the outer loop only; the corrections move, and nothing warns of drift."""
    system = pair().compile().load()
    before = {name: tensor.clone() for name, tensor in system.link_state().items()}
    rows = [{"question": f"{n} + 1", "answer": str(n + 1)} for n in range(8)]
    with caplog.at_level(logging.WARNING, "latentmas"):
        done = lm.train(
            system, rows, output_dir=tmp_path, eval_rows=rows[:2], max_steps=3, progress=False
        )
    assert [stage.loop for stage in done.stages] == ["outer"]
    moved = {n for n, t in system.link_state().items() if not torch.equal(t, before[n])}
    assert any("correction" in name for name in moved) and "links drift" not in caplog.text
