"""Shorter ways through a training step: what cannot change is read once, gradients stay exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import latentmas as lm
from latentmas.backbones import LoadedBackbone
from latentmas.engine.packing import pack
from latentmas.engine.reuse import beginnings
from latentmas.engine.reuse.beginnings import KEY, beginning_of, beginnings_kept
from latentmas.testing import TINY_FAMILIES, tiny_backbone
from latentmas.training.data import TrainingRows
from latentmas.training.losses.outer import OuterLoss
from latentmas.training.losses.teacher_forcing import teacher_force
from tests.teams import load64

ROWS = [
    {"question": "3 + 4?", "answer": "7"},
    {"question": "a longer question, of more words", "answer": "no idea"},
    {"question": "2", "answer": "two"},
]


def team(family: str = "llama", rounds: int = 2, before: str = "Read. ", **link: Any) -> lm.Graph:
    """A pair of agents: slots after a beginning that all rows share, and in its midst."""
    backbone = tiny_backbone(family, 32, layers=4, initializer_range=0.05)
    graph = lm.Graph("pair", inputs=["question"], rounds=rounds, latent_steps=3)
    back = "{% if back %}{{ back }}{% endif %}" if rounds > 1 else ""
    link = link or {"norm": "none"}
    inner = {"inner": "soft_token"} if link.get("link") == "soft_token" else {}
    graph.add_agent("one", backbone, prompt=before + back + "{{ question }}", **inner)
    graph.add_agent(
        "two", backbone, prompt="Look here: {{ question }} {{ one }} Now think.", **inner
    )
    graph.connect("one", "two", **link)
    if rounds > 1:
        graph.feedback("two", "one.back", **link)
    return graph.output("two")


def gradients(system: lm.System, *, numbers: Any = None, **options: Any) -> torch.Tensor:
    """All gradients of the outer loss, in one vector."""
    loss = OuterLoss(system, system.plan, **options)
    system.zero_grad(set_to_none=True)
    loss(ROWS, numbers)["loss"].backward()
    found = [p.grad.flatten() for p in system.parameters() if p.grad is not None]
    return torch.cat(found)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference over the largest value."""
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize(
    ("executor", "checkpoint"), [("cached", False), ("cached", True), ("reference", False)]
)
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_gradients_are_those_of_prompts_read_anew(
    family: str, executor: str, checkpoint: bool, monkeypatch
) -> None:
    """fp64; norms and rotary angles are fp32 in transformers, which sets the floor.

    What a checkpoint computes again in the backward pass must be laid out as in the forward pass.
    """
    system = load64(team(family))
    system.requires_grad_(True)
    options = {"executor": executor, "checkpoint": checkpoint}
    quick = [gradients(system, **options) for _ in range(2)]
    assert system.backbone_of("one").workspace[KEY]
    monkeypatch.setattr(beginnings, "_usable", lambda backbone: False)
    monkeypatch.setattr("latentmas.engine.sessions.cached.CachedSession.splits", False)
    plain = gradients(system, executor="reference")
    assert distance(quick[0], plain) < 1e-4
    assert torch.equal(*quick)


def test_a_batch_and_its_halves_have_equal_gradients() -> None:
    """Other rows have another beginning in common; fp64."""
    system = load64(team())
    system.requires_grad_(True)
    loss, found = OuterLoss(system, system.plan), []
    rows = [{"question": q, "answer": q[-1]} for q in ("1 + 1", "12 + 10", "12 + 3", "another one")]
    for parts in ([rows], [rows[:2], rows[2:]]):
        system.zero_grad(set_to_none=True)
        for part in parts:
            loss(part, num_items_in_batch=loss.n_items(rows))["loss"].backward()
        grads = [p.grad.flatten() for p in system.parameters() if p.grad is not None]
        found.append(torch.cat(grads))
    assert distance(*found) < 1e-12


def test_a_beginning_is_read_once_over_steps(monkeypatch) -> None:
    system = load64(team(before="Read with care. " * 4))
    system.requires_grad_(True)
    read: list[int] = []
    plain = LoadedBackbone.step

    def step(self: LoadedBackbone, x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        read.append(x.shape[0] * x.shape[1])
        return plain(self, x, *args, **options)

    monkeypatch.setattr(LoadedBackbone, "step", step)
    counts = []
    for _ in range(2):
        read.clear()
        gradients(system)
        counts.append(sum(read))
    assert counts[1] < counts[0]
    monkeypatch.setattr(beginnings, "_usable", lambda backbone: False)
    read.clear()
    gradients(system)
    assert sum(read) > 1.5 * counts[1]


def test_a_beginning_ends_before_messages_and_differences() -> None:
    system = load64(team())
    loaded, agent = system.backbone_of("one"), system.plan.graph.agent("one")
    message = torch.zeros(3, 2, 32).double()
    prompt = pack(loaded, agent, ROWS, {"back": message})
    assert beginning_of(loaded, prompt) == ()  # a run outside of training keeps nothing
    with beginnings_kept():
        found = beginning_of(loaded, prompt)
        assert loaded.tokenizer.decode(found).endswith("Read. ")
        other = pack(loaded, agent, [{"question": q} for q in ("ab?", "ac?")], {})
        assert loaded.tokenizer.decode(beginning_of(loaded, other)).endswith("Read. a")
        weight = next(loaded.model.parameters()).requires_grad_(True)
        assert beginning_of(loaded, prompt) == ()  # what it makes of them is not constant
        weight.requires_grad_(False)


def test_a_beginning_is_read_again_after_its_weights_have_changed() -> None:
    system = load64(team())
    system.requires_grad_(True)
    before = gradients(system)
    with torch.no_grad():
        for weight in system.backbone_of("one").model.parameters():
            weight.mul_(1.1)
    kept = gradients(system)
    system.backbone_of("one").workspace.clear()
    assert torch.equal(kept, gradients(system))
    assert not torch.allclose(kept, before)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_scored_states_are_those_of_rows_read_alone(family: str) -> None:
    """Rows that begin in one column, against each row by itself and without padding."""
    system = load64(team(family))
    loaded, agent = system.backbone_of("two"), system.plan.graph.agent("two")
    generator = torch.Generator().manual_seed(0)
    message = torch.randn(3, 2, 32, generator=generator, dtype=torch.float64)
    answers = [[5, 6, 7], [8], [9, 10]]
    with beginnings_kept():
        found = teacher_force(loaded, pack(loaded, agent, ROWS, {"one": message}), answers)
        scored = teacher_force(
            loaded, pack(loaded, agent, ROWS, {"one": message}), answers, scored_only=True
        )
    alone = []
    for row in range(3):
        prompt = pack(loaded, agent, [ROWS[row]], {"one": message[row : row + 1]})
        with torch.no_grad():
            alone.append(teacher_force(loaded, prompt, [answers[row]]))
    h_ND = torch.cat([own.h_ND for own in alone])
    assert torch.allclose(found.h_ND, h_ND, atol=1e-5)
    assert torch.allclose(found.after_ND, torch.cat([own.after_ND for own in alone]), atol=1e-5)
    assert torch.allclose(scored.h_ND, h_ND, atol=1e-5)
    assert scored.ids_N.tolist() == [5, 6, 7, 8, 9, 10]


def test_what_a_link_prepares_of_constant_states_is_kept(monkeypatch) -> None:
    """The vocabulary is asked in the first epoch alone; gradients do not change."""
    system = load64(team(rounds=1, link="soft_token", residual=True))
    link = system.link("outer.one->two.one")
    for weight in link.parameters():
        nn.init.normal_(weight, std=0.1)
    plain = gradients(system)
    loss = OuterLoss(system, system.plan, rows=TrainingRows(ROWS))
    asked: list[int] = []
    scores = LoadedBackbone.logits

    def logits(self: LoadedBackbone, h: torch.Tensor) -> torch.Tensor:
        asked.append(h.shape[0])
        return scores(self, h)

    monkeypatch.setattr(LoadedBackbone, "logits", logits)
    for epoch in range(2):
        asked.clear()
        system.zero_grad(set_to_none=True)
        loss(ROWS, [0, 1, 2])["loss"].backward()
        found = torch.cat([p.grad.flatten() for p in system.parameters() if p.grad is not None])
        assert distance(found, plain) < 1e-6
        assert (len(asked) == 1) is (epoch == 1)  # the answers alone


def test_a_constant_rollout_builds_no_graph(monkeypatch) -> None:
    """Its link has no weights, nothing before it learns, and nothing is kept."""
    system = load64(team(rounds=1, link="soft_token", residual=True))
    monkeypatch.setattr(beginnings, "_usable", lambda backbone: False)
    graphs: list[bool] = []
    plain = LoadedBackbone.step

    def step(self: LoadedBackbone, x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        graphs.append(torch.is_grad_enabled())
        return plain(self, x, *args, **options)

    monkeypatch.setattr(LoadedBackbone, "step", step)
    gradients(system)
    steps = system.plan.graph.steps_of(system.plan.graph.agent("one"))
    assert graphs[:steps] == [False] * steps and any(graphs[steps:])


# ── attention on CPUs ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", TINY_FAMILIES)
@pytest.mark.parametrize("grad", [True, False])
def test_half_precision_attention_is_wide_where_gradients_flow(family: str, grad: bool) -> None:
    system = team(family).compile().load(dtype="bfloat16")
    loaded, seen = system.backbone_of("one"), list[torch.dtype]()
    x_BTD = loaded.embed(torch.arange(4, 24).view(2, 10))
    places = torch.arange(10).expand(2, 10)

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "scaled_dot_product" in str(func) and "backward" not in str(func):
                seen.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    with torch.set_grad_enabled(grad), Watch():
        h = loaded.step(x_BTD.requires_grad_(grad), places, torch.ones_like(places))
    assert h.dtype is torch.bfloat16
    assert set(seen) == {torch.float32 if grad else torch.bfloat16}
    if grad:
        h.float().sum().backward()
        assert x_BTD.grad is not None and x_BTD.grad.isfinite().all()


def test_bfloat16_gradients_are_near_those_of_fp64() -> None:
    """The same bfloat16 weights."""
    found = []
    for exact in (False, True):
        system = team(rounds=1).compile().load(dtype="bfloat16")
        system = system.double() if exact else system
        system.requires_grad_(True)
        found.append(gradients(system).double())
    assert torch.cosine_similarity(*found, dim=0) > 0.99


def test_the_order_of_batches_does_not_change_what_is_read() -> None:
    """What was kept before has no say: a training that resumes ends with the same bits."""
    system = load64(team())
    system.requires_grad_(True)
    first = gradients(system)
    loaded = system.backbone_of("one")
    loss = OuterLoss(system, system.plan)
    for text in ("x", "ab", "3 + 5?"):
        loss([{"question": text, "answer": "1"}] * 2)
    assert len(loaded.workspace[KEY]) > 1
    assert torch.equal(gradients(system), first)
