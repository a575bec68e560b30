"""Buffers of fixed size: bounds, lifetime, captures that fail, how many shapes there are."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import latentmas as lm
from latentmas.backbones import LoadedBackbone, _loaded
from latentmas.engine import executors
from latentmas.engine import static_session as fixed
from latentmas.engine.buffers import surplus
from latentmas.engine.executors.static import Static
from latentmas.engine.packing import Packed
from latentmas.generation import batch as decoding
from latentmas.testing import TINY_FAMILIES, tiny_backbone
from tests.emulated import Cuda, Emulated
from tests.teams import QUESTIONS, of_template


def pair(family: str = "llama", layers: int = 2) -> tuple[lm.System, LoadedBackbone, Any]:
    backbone = tiny_backbone(family, 32, layers=layers)
    graph = lm.templates.distillation(
        expert=backbone, learner=backbone, latent_steps=4, link="recursive", inner="recursive"
    )
    system = graph.compile().load()
    return system, system.backbone_of("expert"), system.link("inner.expert")


def prompts(backbone: LoadedBackbone, rows: int, columns: int, padding: int = 0) -> Packed:
    ids = torch.arange(rows * columns).reshape(rows, columns) % 200 + 4
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    lengths = (columns - padding, *[columns] * (rows - 1))
    return Packed(backbone.embed(ids), mask, lengths, 0, ids)


def token(backbone: LoadedBackbone, rows: int) -> torch.Tensor:
    return backbone.embed(torch.full((rows, 1), 9))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


@pytest.fixture
def no_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# --- captures -------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("columns", [63, 95])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_capture_in_the_last_column_stays_within_the_buffers(
    family: str, columns: int, cuda: Cuda
) -> None:
    """K = 2 after 63 columns: one step is left for buffers of 64 when the step is captured."""
    _, backbone, inner = pair(family)
    plain = executors.get("cached")().rollout(backbone, inner, prompts(backbone, 3, columns), 2)
    found = Emulated().rollout(backbone, inner, prompts(backbone, 3, columns), 2)
    assert cuda.captures == 1
    assert (plain - found).abs().max() < 1e-4


@torch.no_grad()
def test_rows_that_leave_in_the_last_column_stay_within_the_buffers(cuda: Cuda) -> None:
    _, backbone, _ = pair()
    feed = Emulated().session(backbone)
    feed.reserve(16)
    feed.prefill(prompts(backbone, 4, 48))
    for _ in range(15):
        feed.feed(token(backbone, 4))
    feed.select([0, 1])
    h_BD = feed.feed(token(backbone, 2))
    plain = executors.get("cached")().session(backbone)
    plain.prefill(prompts(backbone, 4, 48))
    for _ in range(15):
        plain.feed(token(backbone, 4))
    plain.select([0, 1])
    assert (plain.feed(token(backbone, 2)) - h_BD).abs().max() < 1e-4
    assert cuda.captures == 2


@torch.no_grad()
def test_a_capture_that_fails_is_told_once_and_not_tried_again(
    cuda: Cuda, caplog: pytest.LogCaptureFixture
) -> None:
    _, backbone, inner = pair()
    cuda.fails = True
    plain = executors.get("cached")().rollout(backbone, inner, prompts(backbone, 3, 40), 4)
    for _ in range(3):
        found = Emulated().rollout(backbone, inner, prompts(backbone, 3, 40), 4)
        assert (plain - found).abs().max() < 1e-4
        assert cuda.current is cuda.default, "the thread has left the capture stream"
    assert cuda.captures == 1
    backbone.workspace["free"].clear()  # new buffers of the same shape
    Emulated().rollout(backbone, inner, prompts(backbone, 3, 40), 4)
    assert cuda.captures == 1
    Emulated().rollout(backbone, inner, prompts(backbone, 3, 100), 4)
    assert cuda.captures == 2, "another shape may do"
    told = [r.getMessage() for r in caplog.records if "CUDA graph" in r.getMessage()]
    assert len(told) == 1
    assert backbone.planned.spec.source in told[0] and "not permitted" in told[0]


def test_a_run_over_emulated_graphs_equals_one_without(cuda: Cuda) -> None:
    system = of_template("mixture", "qwen3").compile().load().double()
    how: dict[str, Any] = {"record": ("messages",), "max_new_tokens": 80}
    plain = system.run(QUESTIONS, executor="cached", **how)
    for _ in range(2):
        found = system.run(QUESTIONS, executor=Emulated(), **how)
        assert found.token_ids == plain.token_ids
    assert cuda.captures > 2


@torch.no_grad()
@pytest.mark.parametrize("rows", [[1, 2], [1, 2, 3, 4], [2, 2, 1]])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_columns_that_are_padding_in_every_row_left_are_dropped(
    family: str, rows: list[int]
) -> None:
    """The longest row leaves, another feed joins: states are those of a feed that drops nothing."""
    _, backbone, _ = pair(family)
    ids = torch.arange(5 * 60).reshape(5, 60) % 200 + 4
    mask = torch.ones_like(ids)
    mask[1:, :35] = 0
    prompt = Packed(backbone.embed(ids), mask, (60, 25, 25, 25, 25), 0, ids)
    states = []
    for executor in (executors.get("cached")(), Static()):
        feed, other = executor.session(backbone), executor.session(backbone)
        feed.prefill(prompt)
        feed.feed(token(backbone, 5))
        feed.select(rows)
        other.prefill(prompts(backbone, 2, 40, 7))
        feed.join(other)
        states.append([feed.feed(token(backbone, len(rows) + 2)) for _ in range(3)])
    assert feed.mask_BL is not None
    assert feed.mask_BL.shape[1] == 40, "columns at the join; not 61"
    for wanted, found in zip(*states, strict=True):
        assert (wanted - found).abs().max() < 1e-4


@pytest.fixture
def unequal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of 4 to 40 tokens, the same in each run."""

    def choose(pool: Any, _feed: Any, _h_BD: Any, ready: list[int]) -> list[int]:
        end = min(pool._backbone.stop_ids)
        rows = [pool._rows[i] for i in ready]
        return [end if len(r.ids) >= 4 + r.stream.initial_seed() % 37 else 9 for r in rows]

    monkeypatch.setattr(decoding.GenerationBatch, "_choose", choose)


def many(executor: Any, count: int = 64) -> tuple[LoadedBackbone, lm.RunResult]:
    system, backbone, _ = pair()
    samples = [{"question": "x" * (n % 13)} for n in range(count)]
    how: dict[str, Any] = {"max_new_tokens": 40, "batch_size": 8, "refill_threshold": 0.5}
    for _ in range(2):
        result = system.run(samples, executor=executor, **how)
    return backbone, result


def test_a_batch_that_others_keep_joining_needs_no_ever_larger_buffers(unequal: None) -> None:
    """Columns of padding in every row are dropped: 64 answers take no more than 8."""
    largest = {
        count: max(state.capacity for state in many(Static(), count)[0].workspace["free"])
        for count in (8, 64)
    }
    assert largest[64] <= largest[8]


def test_graphs_of_unequal_answers_are_kept_for_the_next_run(
    unequal: None, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the share of the device's memory that is spared for them."""
    runs: list[int] = []
    plain = lm.System.run

    def run(system: lm.System, *args: Any, **options: Any) -> Any:
        before = cuda.captures
        result = plain(system, *args, **options)
        runs.append(cuda.captures - before)
        return result

    monkeypatch.setattr(lm.System, "run", run)
    many(Emulated())
    assert runs[1] > 2, "six states do not suffice"
    monkeypatch.setattr(fixed, "_spare", lambda _device: 2**30)
    many(Emulated())
    assert runs[3] <= 1 < runs[1] <= runs[2]
    wanted, found = many("cached")[1], many(Emulated())[1]
    assert wanted.token_ids == found.token_ids


def test_kept_buffers_have_a_bound_in_bytes() -> None:
    assert surplus([1] * 9, 0) == 3  # six stay however large they are
    assert surplus([100] * 9, 700) == 2
    assert surplus([1000, 1, 1, 1, 1, 1, 1, 1], 10) == 1
    assert surplus([1] * 9, 10) == surplus([], 10) == 0


# --- lifetime -------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_buffers_are_freed_when_they_are_let_go(family: str, no_gc: None, cuda: Cuda) -> None:
    """Without the garbage collector: low memory is noticed long before it comes."""
    _, backbone, inner = pair(family)
    for executor in (Static(), Emulated()):
        feed = executor.session(backbone)
        feed.reserve(8)
        h_BD = feed.prefill(prompts(backbone, 3, 40))
        feed.roll(inner, h_BD, 4)
        feed.select([0, 1])
        feed.close()
        held = [weakref.ref(state) for state in backbone.workspace["free"]]
        held += [weakref.ref(x) for s in backbone.workspace["free"] for x in s.buffers()]
        held += [weakref.ref(x) for s in backbone.workspace["free"] for x in s.cache.layers]
        assert len(held) > 10
        backbone.workspace.clear()
        cuda.steps.clear()
        assert [ref for ref in held if ref() is not None] == []


@torch.no_grad()
def test_a_feed_that_is_dropped_frees_its_buffers(no_gc: None) -> None:
    _, backbone, inner = pair()
    feed: Any = Static().session(backbone)
    feed.roll(inner, feed.prefill(prompts(backbone, 3, 40)), 4)
    state = weakref.ref(feed._held)
    del feed
    assert state() is None


def test_a_system_that_is_dropped_frees_its_weights(no_gc: None) -> None:
    """Kept buffers must not hold the backbone that holds them."""
    system = of_template("sequential", "llama").compile().load()
    system.run(QUESTIONS, executor="static", max_new_tokens=2)
    backbones = [
        weakref.ref(b) for b in {id(b): b for b in system.agent_backbones.values()}.values()
    ]
    assert all(ref().workspace["free"] for ref in backbones)  # type: ignore[union-attr]
    del system
    assert [ref for ref in backbones if ref() is not None] == []


# --- choices made once ----------------------------------------------------------------------------


def test_a_backbone_is_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by each executor, agent, run, or by the twin."""
    probed: list[str] = []
    plain = _loaded.probe_static

    def probe(backbone: LoadedBackbone, new_state: Any) -> str | None:
        probed.append(backbone.planned.spec.source)
        return plain(backbone, new_state)

    monkeypatch.setattr(_loaded, "probe_static", probe)
    system = of_template("sequential", "llama").compile().load()
    for executor in ("static", Static(), "static"):
        system.run(QUESTIONS, executor=executor, max_new_tokens=2)
    system.text_twin(max_new_tokens=2).run(QUESTIONS, executor="static")
    assert len(probed) == len(set(probed)) == 2


@torch.no_grad()
def test_every_shape_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the eight that `torch.compile` allows one function."""
    compiled: list[object] = []
    plain = torch.compile

    def backend(graph: Any, _inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda f, **how: plain(f, **how, backend=backend))
    _, backbone, inner = pair(layers=1)
    torch._dynamo.reset()
    counts = []
    for rows in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):
        given = prompts(backbone, rows, 20)
        feed = Static(compile_step=True).session(backbone)
        feed.reserve(8)
        feed.roll(inner, feed.prefill(given), 3)
        feed.close()
        counts.append(len(compiled))
    assert all(after > before for before, after in itertools.pairwise(counts))
    made = len(compiled)
    feed = Static(compile_step=True).session(backbone)
    feed.roll(inner, feed.prefill(prompts(backbone, 32, 20)), 3)
    assert len(compiled) == made, "kept buffers keep their compiled step"


def test_nothing_is_compiled_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", None)
    system = of_template("sequential", "llama").compile().load()
    system.run(QUESTIONS, executor="static", max_new_tokens=2)
