"""Taps: what passes along an edge is read and replaced, latents and texts alike."""

from __future__ import annotations

import pytest
import torch

import latentmas as lm
from latentmas.runtime import System
from tests.teams import QUESTIONS, load64, sequential, tiny

SHORT = {"rounds": 2, "latent_steps": 2, "max_new_tokens": 3}


@pytest.fixture(scope="module")
def latent() -> System:
    return load64(sequential(**SHORT))


@pytest.fixture(scope="module")
def text_messages() -> System:
    return load64(sequential(**SHORT).as_text(max_new_tokens=3))


def test_a_tap_reads_what_arrives_and_changes_nothing(latent):
    plain = latent.run(QUESTIONS, record=("messages",))
    with latent.tap("planner->critic") as tap:
        tapped = latent.run(QUESTIONS, batch_size=2)
    assert tapped.texts == plain.texts
    assert list(tap.messages) == ["round1.planner->critic", "round2.planner->critic"]
    for name, message_BKD in tap.messages.items():
        assert torch.allclose(message_BKD, plain.messages[name], atol=2e-6), name
    assert tap.removed
    latent.run(QUESTIONS[:1])
    assert len(tap.messages["round1.planner->critic"]) == 3  # what it read stays


def test_a_tap_holds_the_newest_run(latent):
    with latent.tap("solver->planner") as tap:
        latent.run(QUESTIONS)
        assert list(tap.messages) == ["round1.solver->planner"]
        latent.run(QUESTIONS[:1], rounds=1)
        assert tap.messages == {}


def test_taps_and_edit_message_replace_in_turn(latent):
    seen = []

    def add_one(name: str, message_BKD: torch.Tensor) -> torch.Tensor:
        seen.append(name)
        return message_BKD + 1

    first = latent.tap("critic->solver", add_one)
    second = latent.tap("critic->solver", lambda name, message_BKD: message_BKD * 2)
    last = latent.tap("critic->solver")
    run = latent.run(
        QUESTIONS,
        record=("messages",),
        edit_message=lambda name, message_BKD: torch.zeros_like(message_BKD),
    )
    for tap in (first, second, last):
        tap.remove()
        tap.remove()
    name = "round2.critic->solver"
    assert not first.messages[name].any()
    assert (second.messages[name] == 1).all() and (last.messages[name] == 2).all()
    assert (run.messages[name] == 2).all() and not run.messages["round2.planner->critic"].any()
    assert seen == ["round1.critic->solver", name]
    assert latent.run(QUESTIONS).texts == latent.run(QUESTIONS).texts
    assert seen == ["round1.critic->solver", name]  # removed taps are not asked


def test_a_message_may_get_fewer_rows(latent):
    with latent.tap("planner->critic", lambda name, message_BKD: message_BKD[:, :1]):
        run = latent.run(QUESTIONS, record=("messages", "report"))
    assert run.messages["round1.planner->critic"].shape[1] == 1


def test_a_tap_reads_and_replaces_text(text_messages):
    plain = text_messages.run(QUESTIONS, rounds=1)
    with text_messages.tap("planner->critic") as tap:
        assert text_messages.run(QUESTIONS, rounds=1, batch_size=2).texts == plain.texts
    assert tap.texts == {"round1.planner->critic": plain.text_messages["round1.planner.text"]}

    def shout(name: str, texts: list[str]) -> list[str]:
        return [f"{name}: shouted" for _ in texts]

    with text_messages.tap("planner->critic", shout), text_messages.tap("planner->critic") as after:
        other = text_messages.run(QUESTIONS, rounds=1)
    assert after.texts == {"round1.planner->critic": ["round1.planner->critic: shouted"] * 3}
    assert other.text_messages["round1.planner.text"] == plain.text_messages["round1.planner.text"]
    critic = next(r for r in other.accounting if r.agent == "critic")
    before = next(r for r in plain.accounting if r.agent == "critic")
    assert critic.prompt_tokens != before.prompt_tokens


def test_feedback_text_is_named_by_the_round_that_wrote_it(text_messages):
    with text_messages.tap("solver->planner") as tap:
        run = text_messages.run(QUESTIONS)
    assert tap.texts == {"round1.solver->planner": run.text_messages["round1.solver.text"]}


def source_and_two_slots() -> System:
    """Text from outside, and two edges between one pair of agents."""
    small = tiny("llama", 16)
    graph = lm.Graph("two", inputs=["question"], rounds=2, latent_steps=2)
    graph.add_text_source("notes", "be brief")
    back = "{% if b %}{{ b }}{% endif %}"
    graph.add_agent("a", small, prompt="{{ notes }} {{ question }}" + back)
    graph.add_agent("b", small, prompt="{{ first }} {{ second }} {{ question }}", max_new_tokens=2)
    graph.connect("notes", "a")
    graph.connect("a", "b.first")
    graph.connect("a", "b.second", link="text")
    graph.feedback("b", "a")
    return graph.output("b").compile().load()


def test_outside_text_passes_once_a_round_though_two_steps_read_it():
    system = source_and_two_slots()
    calls = []

    def edit(name: str, texts: list[str]) -> list[str]:
        calls.append(name)
        return ["be long"] * len(texts)

    with system.tap("notes->a", edit) as tap:
        system.run(QUESTIONS, max_new_tokens=2)
    assert calls == ["round1.notes->a", "round2.notes->a"]  # `a` rolls and writes in each
    assert tap.texts == dict.fromkeys(calls, ["be brief"] * 3)


def test_an_edge_is_named_by_its_ends_or_by_its_slot_too():
    system = source_and_two_slots()
    with pytest.raises(lm.LatentMASError, match=r"2 edges.*'a->b.first', 'a->b.second'"):
        system.tap("a->b")
    with system.tap("a->b.first") as latents, system.tap("a->b.second") as texts:
        run = system.run(["?"], max_new_tokens=2, record=("messages",))
    assert latents.edge == "a->b.first" and set(latents.messages) < set(run.messages)
    assert list(texts.texts) == ["round1.a->b.second", "round2.a->b.second"]


def test_an_unknown_edge_is_answered_with_the_nearest(latent):
    with pytest.raises(lm.UnknownNameError, match=r"'planer->critic'; did you mean 'planner->cri"):
        latent.tap("planer->critic")
    with pytest.raises(lm.UnknownNameError, match=r"unknown edge 'critic'.*solver->planner"):
        latent.tap("critic")
    assert not latent.taps.open


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda name, m: m[..., :1], r"planner->critic.*\(1, 2, 1\).*shape \(1, 2, 32\)"),
        (lambda name, m: None, r"planner->critic.*NoneType"),
    ],
)
def test_an_edit_that_does_not_fit_says_so(latent, made, said):
    with latent.tap("planner->critic", made), pytest.raises(lm.ExecutionError, match=said):
        latent.run(QUESTIONS[:1])


def test_a_text_edit_that_does_not_fit_says_so(text_messages):
    said = r"made 'one' of 3 texts; give a list of as many strings"
    with (
        text_messages.tap("planner->critic", lambda name, texts: "one"),
        pytest.raises(lm.ExecutionError, match=said),
    ):
        text_messages.run(QUESTIONS)


def test_training_does_not_pass_through_taps(tmp_path):
    system = load64(sequential(**SHORT))

    def fail(name: str, value: torch.Tensor) -> torch.Tensor:
        raise AssertionError(name)

    system.tap("planner->critic", fail)
    rows = [{"question": "3 + 4?", "answer": "7"}]
    config = lm.OuterConfig(str(tmp_path), max_steps=1, use_cpu=True, probe_stability=False)
    lm.OuterTrainer(system, config, train_dataset=rows).train()
