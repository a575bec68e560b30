"""What makes runs fast, held without a clock: no look back at the host, few operations, choices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import latentmas as lm
from latentmas.backbones import LoadedBackbone
from latentmas.engine import executors
from latentmas.engine.auto_executor import choose_executor
from latentmas.engine.buffers import bucket
from latentmas.engine.executors.offload import Offload
from latentmas.engine.packing import pack
from latentmas.testing import TINY_FAMILIES, tiny_backbone
from tests.teams import QUESTIONS, load64, of_template

SYNCS = {
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::is_nonzero",
    "aten::nonzero",
    "aten::equal",
    "aten::masked_select",
}
"""Operations that wait for a device."""
FREE = {"aten::detach", "aten::alias", "aten::lift_fresh", "aten::_unsafe_view"}


class Operations(TorchDispatchMode):
    """Counts what reaches the device; views cost it nothing and are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func._schema.name not in FREE:
            self.counts[func._schema.name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def syncs(self) -> dict[str, int]:
        """Those that wait."""
        return {name: count for name, count in self.counts.items() if name in SYNCS}


def rolled(
    family: str, executor: str, rows: list[str], steps: int, layers: int = 4, **config: Any
) -> Operations:
    """What a rollout does after one of the same kind has been through."""
    backbone = tiny_backbone(family, 32, layers=layers, **config)
    graph = lm.templates.distillation(
        expert=backbone, learner=backbone, latent_steps=steps, link="recursive", inner="recursive"
    )
    system = graph.compile().load()
    samples = [{"question": text} for text in rows]
    loaded, agent = system.backbone_of("expert"), system.plan.graph.agent("expert")
    run, inner = executors.get(executor)(), system.link("inner.expert")
    with torch.no_grad():
        prompt = pack(loaded, agent, samples, {})
        run.rollout(loaded, inner, prompt, steps)
        with Operations() as seen:
            run.rollout(loaded, inner, prompt, steps)
    return seen


@pytest.mark.parametrize("rows", [["short", "a longer question"], ["same", "size"]])
@pytest.mark.parametrize("executor", ["cached", "static"])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_rollout_never_looks_back_at_the_host(
    family: str, executor: str, rows: list[str]
) -> None:
    assert rolled(family, executor, rows, 6).syncs == {}


def test_the_count_sees_a_look_back() -> None:
    with Operations() as seen:
        assert bool(torch.ones(2).sum() > 1)
    assert seen.syncs


BUDGETS = {
    "llama": 36,
    "mistral": 36,
    "qwen2": 36,
    "qwen3": 48,
    "gemma3_text": 71,
    "qwen3_5_text": 66,
}
"""Operations of a layer in a latent step, with transformers 5.23; views not counted."""


@pytest.mark.parametrize("executor", ["cached", "static"])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_step_keeps_to_its_budget(family: str, executor: str) -> None:
    """Differences between depths and lengths leave a layer's share of a step alone."""

    def count(layers: int, steps: int) -> int:
        return sum(rolled(family, executor, QUESTION, steps, layers).counts.values())

    per_step = {layers: (count(layers, 9) - count(layers, 5)) / 4 for layers in (4, 8)}
    assert (per_step[8] - per_step[4]) / 4 <= BUDGETS[family]
    assert per_step[4] - (per_step[8] - per_step[4]) <= 45  # masks, positions, rotary, norm, link


def test_a_full_window_moves_its_columns_seldom() -> None:
    """Each eighth of a window, not at each step."""

    def count(steps: int) -> int:
        seen = rolled("mistral", "cached", QUESTION, steps, layers=2, sliding_window=64)
        return seen.counts["aten::new_empty"]

    buffers = 2 * 2  # keys and values of each layer
    assert 0 < (count(40) - count(8)) / buffers <= 32 / 8


QUESTION = ["why?"]


@pytest.mark.parametrize("executor", ["cached", "static"])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_greedy_ids_equal_those_of_generate(family: str, executor: str) -> None:
    """The oracle is transformers' own loop, over the same spliced prompt."""
    system = load64(of_template("sequential", family))
    caught: list[Any] = []

    def keep(executor: Any, backbone: Any, prompt: Any) -> None:
        caught.append((backbone, prompt))

    with watched_prompts(keep):
        found = system.run(QUESTIONS, executor=executor, max_new_tokens=24)
    backbone, prompt = caught[-1]
    ids = backbone.model.generate(
        inputs_embeds=prompt.x_BTD,
        attention_mask=prompt.mask_BT,
        max_new_tokens=24,
        do_sample=False,
        eos_token_id=sorted(backbone.stop_ids),
        pad_token_id=backbone.pad_id,
    )
    wanted = [row[: first_stop(row, backbone.stop_ids)] for row in ids.tolist()]
    assert found.token_ids == wanted
    assert any(wanted)


def first_stop(row: list[int], stops: frozenset[int]) -> int:
    return next((i for i, token in enumerate(row) if token in stops), len(row))


@contextmanager
def watched_prompts(keep: Any) -> Iterator[None]:
    from latentmas.generation.batch import GenerationBatch

    plain = GenerationBatch.add

    def add(self: Any, prompt: Any, writing: Any) -> Any:
        keep(self._executor, self._backbone, prompt)
        return plain(self, prompt, writing)

    GenerationBatch.add = add  # type: ignore[method-assign]
    try:
        yield
    finally:
        GenerationBatch.add = plain  # type: ignore[method-assign]


def test_buckets_waste_at_most_half() -> None:
    assert [bucket(n) for n in (1, 2, 3, 4, 5, 7, 9, 13, 25, 33)] == [
        1, 2, 3, 4, 6, 8, 12, 16, 32, 48,
    ]  # fmt: skip
    for n in range(1, 3000):
        assert n <= bucket(n) < 2 * n
        assert bucket(bucket(n)) == bucket(n)


# --- which executor -------------------------------------------------------------------------------


def test_the_choice_tells_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    system = of_template("sequential", "llama").compile().load()
    choice = system.choose_executor()
    assert choice.name == "cached"
    assert "agent 'planner'" in choice.reason and "is on cpu" in choice.reason
    assert system.run(QUESTIONS[:1], max_new_tokens=1).executor == "cached"
    monkeypatch.setattr(LoadedBackbone, "device", torch.device("cuda:0"))
    monkeypatch.setattr(LoadedBackbone, "static_reason", None)
    assert choose_executor(system.agent_backbones).name == "cuda_graph"
    monkeypatch.setattr(LoadedBackbone, "static_reason", "it says so")
    assert "no cuda_graph" in choose_executor(system.agent_backbones).reason
    assert "it says so" in choose_executor(system.agent_backbones).reason


def test_a_graph_needs_cuda() -> None:
    system = of_template("sequential", "llama").compile().load()
    with pytest.raises(lm.LatentMASError, match=r"needs a CUDA device.*executor='cached'"):
        system.run(QUESTIONS[:1], executor="cuda_graph")


def test_an_executor_may_be_given_itself() -> None:
    system = load64(of_template("sequential", "llama"))
    static = executors.get("static")("mask", compile_step=False)
    found = system.run(QUESTIONS, executor=static)
    assert found.executor == "static"
    assert found.token_ids == system.run(QUESTIONS, executor="reference").token_ids
    with pytest.raises(lm.LatentMASError, match="refill_threshold is 0"):
        system.run(QUESTIONS, refill_threshold=0)


def test_backbones_take_turns_within_a_budget() -> None:
    """Two backbones, room for one: they come and leave by turns, and nothing else changes."""
    one, two = tiny_backbone("llama", 32), tiny_backbone("qwen3", 32)
    system = load64(
        lm.templates.distillation(
            expert=one, learner=two, latent_steps=3, link="recursive", inner="recursive"
        )
    )
    wanted = system.run(QUESTIONS, executor="reference", record=("messages",))
    sizes = [
        sum(t.nbytes for t in [*b.model.parameters(), *b.model.buffers()])
        for b in (system.backbone_of("expert"), system.backbone_of("learner"))
    ]
    weights = [p.data_ptr() for p in system.backbone_of("expert").model.parameters()]
    small = Offload(device="cpu", budget=max(sizes))
    found = system.run(QUESTIONS, executor=small, record=("messages",))
    assert found.token_ids == wanted.token_ids
    turns = [f"{sign}{b.source}" for b, sign in ((one, "+"), (one, "-"), (two, "+"), (two, "-"))]
    assert small.moves == turns * system.plan.graph.rounds
    assert weights == [p.data_ptr() for p in system.backbone_of("expert").model.parameters()]
    large = Offload(device="cpu", budget=sum(sizes))
    system.run(QUESTIONS, executor=large)
    assert [move[0] for move in large.moves] == ["+", "+", "-", "-"]
    with pytest.raises(lm.LatentMASError, match=r"MiB of weights; .* MiB may be on 'cpu'"):
        system.run(QUESTIONS, executor=Offload(device="cpu", budget=min(sizes) - 1))


@pytest.mark.gpu
@pytest.mark.parametrize("family", TINY_FAMILIES)
@pytest.mark.parametrize("executor", ["cuda_graph", "offload"])
def test_gpu_executors_equal_the_oracle(executor: str, family: str) -> None:
    where = "cpu" if executor == "offload" else "cuda"
    system = of_template("mixture", family).compile().load(where).double()
    plain = system.run(QUESTIONS, executor="reference", record=("messages",), max_new_tokens=80)
    for _ in range(2):
        found = system.run(QUESTIONS, executor=executor, record=("messages",), max_new_tokens=80)
        assert found.token_ids == plain.token_ids
        for name, message in plain.messages.items():
            assert (message - found.messages[name]).abs().max() / message.abs().max() < 1e-4, name
