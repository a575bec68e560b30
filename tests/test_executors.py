"""Reuse of prompts' beginnings and batched branches: fewer positions, equal results."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import latentmas as lm
from latentmas.backbones import LoadedBackbone
from latentmas.engine import executors
from latentmas.engine.cuda_graphs import POOL
from latentmas.engine.reuse.prefix import MESSAGE, PADDING, shared_columns
from latentmas.testing import TINY_FAMILIES
from tests.teams import QUESTIONS, load64, of_template, tiny

TEMPLATES = ("sequential", "mixture", "distillation", "deliberation")


class Counter:
    """Counts model calls, and the positions that they read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = self.positions = 0
        plain = LoadedBackbone.step

        def step(backbone: Any, x_BTD: Any, *args: Any, **options: Any) -> Any:
            self.calls += 1
            self.positions += x_BTD.shape[0] * x_BTD.shape[1]
            return plain(backbone, x_BTD, *args, **options)

        monkeypatch.setattr(LoadedBackbone, "step", step)


def messages(system: lm.System, executor: str, **options: Any) -> tuple[Any, Any]:
    result = system.run(
        QUESTIONS, executor=executor, record=("messages",), max_new_tokens=4, **options
    )
    return result.messages, result.token_ids


def close(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """fp64; rotary positions and some norms are fp32, which sets the floor."""
    assert found.keys() == wanted.keys()
    for name, message in wanted.items():
        assert (message - found[name]).abs().max() / message.abs().max() < 1e-4, name


@pytest.mark.parametrize("family", TINY_FAMILIES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_executor_equals_the_oracle(template: str, family: str) -> None:
    """fp64; in turn three left-padded rows and one, positions from the mask and from columns."""
    system = load64(of_template(template, family))
    mode = "column" if template in ("sequential", "distillation") else "mask"
    alone = (TEMPLATES.index(template) + TINY_FAMILIES.index(family)) % 2
    how: dict[str, Any] = {"batch_size": 1, "position_mode": mode} if alone else {}
    plain, ids = messages(system, "reference", **how)
    for executor in ("cached", "static"):
        fast, fast_ids = messages(system, executor, **how)
        assert ids == fast_ids, executor
        close(fast, plain)


def long_prefix(rounds: int = 3) -> lm.Graph:
    """Two agents whose slots stand at the end of long prompts."""
    backbone = tiny("llama", 16)
    graph = lm.Graph("pair", inputs=["question"], rounds=rounds, latent_steps=2)
    many = "Read all of this with care. " * 10 + "{{ question }} "
    graph.add_agent("one", backbone, prompt=many + "{% if back %}{{ back }}{% endif %} go")
    graph.add_agent("two", backbone, prompt=many + "{{ one }} go", max_new_tokens=2)
    graph.connect("one", "two")
    graph.feedback("two", "one.back")
    return graph.output("two")


def test_a_prompts_beginning_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentmas.engine.sessions.prompts.beginning_of", lambda *_: ())
    system = long_prefix().compile().load()
    counter = Counter(monkeypatch)
    system.run(QUESTIONS, executor="cached")
    reused = counter.positions
    counter.positions = 0
    monkeypatch.setattr(executors.get("cached"), "reuses", False)
    system.run(QUESTIONS, executor="cached")
    assert reused < 0.45 * counter.positions  # 6 turns read about 2 prompts


def test_training_does_not_reuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the last step has left would be another step's state."""
    from latentmas.training.losses.outer import OuterLoss

    system = long_prefix(2).compile().load()
    rows = [{"question": q, "answer": "7"} for q in QUESTIONS]
    monkeypatch.setattr("latentmas.engine.sessions.prompts.KVCache.restore", None)
    OuterLoss(system, system.plan)(rows)["loss"].backward()


def three_on_one(backbone: lm.Backbone) -> lm.Graph:
    experts = {"math": backbone, "code": backbone, "science": backbone}
    return lm.templates.mixture(
        experts=experts, summarizer=backbone, rounds=2, latent_steps=4, max_new_tokens=2
    )


def test_experts_on_one_backbone_run_as_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    system = three_on_one(tiny("llama", 16)).compile().load()
    counter = Counter(monkeypatch)
    result = system.run(QUESTIONS, executor="cached", record=("states",))
    together = counter.calls
    counter.calls = 0
    monkeypatch.setattr(executors.get("cached"), "groups", False)
    apart = system.run(QUESTIONS, executor="cached", record=("states",))
    assert together < 0.55 * counter.calls
    for name, states in apart.states.items():
        assert (states - result.states[name]).abs().max() < 1e-4, name
    assert [(r.agent, r.round, r.prompt_tokens) for r in result.accounting] == [
        (r.agent, r.round, r.prompt_tokens) for r in apart.accounting
    ]


def long_branches(family: str, rounds: int) -> lm.Graph:
    """Experts with long beginnings, one of them longer and one that hears nothing of round 1."""
    backbone = tiny(family, 16)
    graph = lm.Graph("branches", inputs=["question"], rounds=rounds, latent_steps=3)
    many = "Read all of this with care. " * 6 + "{{ question }} "
    back = "{% if back %}{{ back }}{% endif %} go"
    graph.add_agent("one", backbone, prompt=many + back)
    graph.add_agent("two", backbone, prompt="You are the second. " + many + back)
    graph.add_agent("three", backbone, prompt=many + "go")
    graph.add_agent("all", backbone, prompt="{{ one }}{{ two }}{{ three }} go", max_new_tokens=3)
    for name in ("one", "two", "three"):
        graph.connect(name, f"all.{name}")
    graph.feedback("all", "one.back")
    graph.feedback("all", "two.back")
    return graph.output("all")


@pytest.mark.parametrize("executor", ["cached", "static"])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_the_beginnings_of_branches_are_read_once(
    family: str, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one batch, over rounds; and what comes of it equals the oracle."""
    system = load64(long_branches(family, 4))
    plain, ids = messages(system, "reference")
    counter = Counter(monkeypatch)
    fast, fast_ids = messages(system, executor)
    reused = counter.positions
    counter.positions = 0
    monkeypatch.setattr(executors.get(executor), "reuses", False)
    messages(system, executor)
    assert reused < 0.75 * counter.positions  # rounds 3 and 4 read the ends alone
    assert ids == fast_ids
    close(fast, plain)


def test_groups_are_differentiable() -> None:
    from latentmas.training.losses.outer import OuterLoss

    rows = [{"question": q, "answer": "7"} for q in QUESTIONS]
    system = load64(three_on_one(tiny("llama", 16)))
    gradients = []
    for executor in ("cached", "reference"):
        system.requires_grad_(True)
        system.zero_grad(set_to_none=True)
        OuterLoss(system, system.plan, executor=executor)(rows)["loss"].backward()
        gradients.append({n: p.grad for n, p in system.named_parameters() if p.grad is not None})
    scale = max(float(g.abs().max()) for g in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() / scale < 1e-4, name


@given(
    tails=st.tuples(st.integers(1, 5), st.integers(1, 9)),
    starts=st.lists(st.integers(0, 11), min_size=1, max_size=4),
    width=st.integers(9, 20),
    cut=st.integers(0, 25),
)
def test_shared_columns_are_shared_and_every_row_has_begun(
    tails: tuple[int, int], starts: list[int], width: int, cut: int
) -> None:
    generator = torch.Generator().manual_seed(width * 31 + cut)
    head = torch.randint(0, 50, (len(starts), width), generator=generator)
    for row, start in enumerate(starts):
        head[row, :start] = PADDING
    if cut < width:
        head[0, cut] = MESSAGE
    now, after = (torch.cat([head, torch.full((len(starts), n), 60 + n)], dim=1) for n in tails)
    count = shared_columns(now, after)
    assert now[:, :count].equal(after[:, :count])
    assert not (now[:, :count] == MESSAGE).any()
    if count:
        assert (now[:, :count] >= 0).any(dim=1).all()


# --- states of fixed size -------------------------------------------------------------------------


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_fixed_buffers_grow_and_serve_again(family: str) -> None:
    """150 tokens do not fit the first buffers; the second run takes those of the first."""
    system = load64(of_template("distillation", family))
    how: dict[str, Any] = {"max_new_tokens": 150, "executor": "static"}
    wanted = system.run(QUESTIONS, max_new_tokens=150, executor="cached")
    found = [system.run(QUESTIONS, **how) for _ in range(2)]
    assert all(result.token_ids == wanted.token_ids for result in found)
    backbone = next(iter(system.agent_backbones.values()))
    kept = {id(buffers) for buffers in backbone.workspace[POOL].held}
    system.run(QUESTIONS, **how)
    assert {id(buffers) for buffers in backbone.workspace[POOL].held} == kept
    system.double()
    assert not backbone.workspace


@pytest.mark.parametrize("window", [8, 24])
@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
@pytest.mark.parametrize("executor", ["cached", "static"])
def test_windows_that_are_exceeded(executor: str, family: str, window: int) -> None:
    backbone = lm.testing.tiny_backbone(family, 32, sliding_window=window)
    graph = lm.templates.distillation(expert=backbone, learner=backbone, latent_steps=6)
    system = load64(graph)
    plain, ids = messages(system, "reference")
    fast, fast_ids = messages(system, executor)
    assert ids == fast_ids
    close(fast, plain)


# --- rows that leave and join ---------------------------------------------------------------------


@settings(max_examples=6, deadline=None)
@given(
    family=st.sampled_from(TINY_FAMILIES),
    executor=st.sampled_from(["reference", "cached", "static"]),
    batch_size=st.integers(1, 4),
    refill_threshold=st.sampled_from([0.01, 0.5, 1.0]),
    mode=st.sampled_from(["mask", "column"]),
    times=st.integers(1, 2),
    words=st.lists(st.integers(1, 60), min_size=1, max_size=5),
)
def test_neighbours_change_nothing(
    family: str,
    executor: str,
    batch_size: int,
    refill_threshold: float,
    mode: str,
    times: int,
    words: list[int],
) -> None:
    """Each sample alone gives what it gives among others that end before it or join it."""
    system = load64(of_template("distillation", family))
    samples = [{"question": f"{i} " + "x" * count} for i, count in enumerate(words)]
    how: dict[str, Any] = {
        "max_new_tokens": 24,
        "do_sample": True,
        "stop": list("abcdefghijklmnop"),  # one in sixteen tokens ends a row
        "position_mode": mode,
        "num_return_sequences": times,
        "record": ("messages",),
    }
    seeds = list(range(len(samples)))
    found = system.run(
        samples,
        seed=seeds,
        executor=executor,
        batch_size=batch_size,
        refill_threshold=refill_threshold,
        **how,
    )
    for i, sample in enumerate(samples):
        alone = system.run([sample], seed=[i], executor="reference", **how)
        assert found.sequence_ids[i] == alone.sequence_ids[0]
        own = {name: message[i] for name, message in found.messages.items()}
        close(own, {name: message[0] for name, message in alone.messages.items()})
