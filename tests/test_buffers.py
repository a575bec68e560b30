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
from latentmas.engine import GroupedInner, cuda_graphs, executors
from latentmas.engine.buffers import BufferPool
from latentmas.engine.cuda_graphs import POOL, count_graphs
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
    assert cuda.captures == 2, "rows of 4, then of 2, in the same buffers"
    assert len(backbone.workspace[POOL].held) == 1


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
    backbone.workspace[POOL].clear()  # new buffers of the same shape
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
    ids = torch.arange(5 * 80).reshape(5, 80) % 200 + 4
    mask = torch.ones_like(ids)
    mask[1:, :55] = 0
    prompt = Packed(backbone.embed(ids), mask, (80, 25, 25, 25, 25), 0, ids)
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
    assert feed.mask_BL.shape[1] == 40, "columns at the join; not 81"
    for wanted, found in zip(*states, strict=True):
        assert (wanted - found).abs().max() < 1e-4


@pytest.fixture
def unequal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of 4 to 40 tokens, the same in each run."""

    plain = decoding.GenerationBatch._settle

    def settle(pool: Any, chosen: dict[int, int]) -> None:
        end, rows = min(pool._backbone.stop_ids), pool._rows
        lengths = {i: 4 + rows[i].stream.initial_seed() % 37 for i in chosen}
        plain(pool, {i: end if len(rows[i].ids) >= lengths[i] else 9 for i in chosen})

    monkeypatch.setattr(decoding.GenerationBatch, "_settle", settle)


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
        count: max(one.capacity for one in many(Static(), count)[0].workspace[POOL].held)
        for count in (8, 64)
    }
    assert largest[64] <= largest[8]


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_5_text"])
def test_a_second_run_of_unequal_answers_captures_nothing(
    family: str, unequal: None, cuda: Cuda
) -> None:
    """Rows that leave and join run on graphs of few sizes, which are kept."""
    system, backbone, _ = pair(family)
    samples = [{"question": "x" * (n % 13)} for n in range(96)]
    how: dict[str, Any] = {"max_new_tokens": 40, "batch_size": 8, "refill_threshold": 0.5}
    wanted = system.run(samples, executor="cached", **how)
    runs = []
    for _ in range(2):
        before = cuda.captures
        found = system.run(samples, executor=Emulated(), **how)
        runs.append(cuda.captures - before)
        assert found.token_ids == wanted.token_ids
    assert 0 < runs[0] <= 16
    assert runs[1] == 0
    assert count_graphs(backbone) == runs[0]


@pytest.mark.parametrize("sequences", [1, 3])
@pytest.mark.parametrize("template", ["sequential", "mixture", "deliberation"])
def test_a_run_within_the_limits_of_a_warm_up_captures_nothing(
    template: str, sequences: int, unequal: None, cuda: Cuda
) -> None:
    system = of_template(template, "llama").compile().load()
    limits: dict[str, Any] = {"batch_size": 5, "max_new_tokens": 40}
    limits |= {"num_return_sequences": sequences}
    sampled = {"do_sample": sequences > 1}
    done = system.warm_up(**limits, max_length=400, executor=Emulated())
    assert done.captures == done.graphs == cuda.captures > 10
    assert done.left_out == 0
    assert f"{done.nbytes / 2**20:.1f} MiB, {done.graphs} CUDA graphs" in str(system)
    backbones = {id(b): b for b in system.agent_backbones.values()}.values()
    held = [one for backbone in backbones for one in backbone.workspace[POOL].held]
    assert done.nbytes == sum(one.nbytes for one in held)
    samples = [{"question": "x" * (n % 13)} for n in range(17)]
    found = system.run(samples, executor=Emulated(), refill_threshold=0.5, **limits, **sampled)
    assert cuda.captures == done.captures
    wanted = system.run(samples, executor="cached", **limits, **sampled)
    assert found.sequence_ids == wanted.sequence_ids
    after = [one for backbone in backbones for one in backbone.workspace[POOL].held]
    assert set(map(id, after)) == set(map(id, held)), "buffers are those that were told of"
    again = system.warm_up(**limits, max_length=400, executor=Emulated())
    assert (again.captures, again.graphs, again.nbytes) == (0, done.graphs, done.nbytes)


def test_a_run_beyond_a_warm_up_keeps_to_its_bounds(unequal: None, cuda: Cuda) -> None:
    """Rows beyond it and answers that grow beyond it run without graphs, and are the same."""
    system, backbone, _ = pair()
    done = system.warm_up(batch_size=2, max_length=64, max_new_tokens=8, executor=Emulated())
    samples = [{"question": "x" * (n % 13)} for n in range(12)]
    how: dict[str, Any] = {"max_new_tokens": 40, "batch_size": 8, "refill_threshold": 0.5}
    wanted = system.run(samples, executor="cached", **how)
    for _ in range(2):
        assert system.run(samples, executor=Emulated(), **how).token_ids == wanted.token_ids
    assert backbone.workspace[POOL].nbytes == done.nbytes
    assert cuda.captures == done.captures


def test_graphs_have_a_bound(unequal: None, cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps beyond it run without one; none is captured again to make room."""
    monkeypatch.setattr(cuda_graphs, "MOST_GRAPHS", 3)
    system, backbone, _ = pair()
    samples = [{"question": "x" * (n % 13)} for n in range(24)]
    how: dict[str, Any] = {"max_new_tokens": 40, "batch_size": 8, "refill_threshold": 0.5}
    wanted = system.run(samples, executor="cached", **how)
    for _ in range(2):
        assert system.run(samples, executor=Emulated(), **how).token_ids == wanted.token_ids
    assert cuda.captures == count_graphs(backbone) == 3


def test_a_warm_up_without_graphs_says_so() -> None:
    system, backbone, _ = pair()
    for executor in ("cached", "static", "reference", "offload"):
        done = system.warm_up(executor=executor)
        assert done.captures == 0
        assert f"executor '{executor}' captures no graphs" in str(done)
    assert POOL not in backbone.workspace
    assert "CUDA graphs" not in str(system)
    with pytest.raises(lm.LatentMASError, match="batch_size"):
        system.warm_up(batch_size=0)


@torch.no_grad()
@pytest.mark.parametrize("sizes", [(1, 1), (2, 2), (3, 3), (3, 1)])
def test_agents_of_one_batch_share_graphs_whatever_their_rows(
    sizes: tuple[int, int], cuda: Cuda
) -> None:
    system, backbone, first = pair()
    second = system.link("inner.learner")
    inner = GroupedInner([first, second], sizes)
    given = prompts(backbone, sum(sizes), 20, 5)
    wanted = executors.get("reference")().rollout(backbone, inner, given, 6)
    assert (Emulated().rollout(backbone, inner, given, 6) - wanted).abs().max() < 1e-4
    other = GroupedInner([first, second], sizes[::-1])
    wanted = executors.get("reference")().rollout(backbone, other, given, 6)
    assert (Emulated().rollout(backbone, other, given, 6) - wanted).abs().max() < 1e-4
    assert cuda.captures == 1


@torch.no_grad()
def test_a_link_that_cannot_be_captured_runs_between_captured_steps(cuda: Cuda) -> None:
    _, backbone, inner = pair()
    given, seen = prompts(backbone, 3, 20), list[bool]()
    plain = type(inner).forward

    class LooksBack(type(inner)):  # type: ignore[misc]
        capturable = False

        def forward(self, h_BKS: torch.Tensor) -> torch.Tensor:
            seen.append(bool(h_BKS.isfinite().all()))
            return plain(self, h_BKS)

    wanted = executors.get("cached")().rollout(backbone, inner, given, 4)
    inner.__class__ = LooksBack
    assert (Emulated().rollout(backbone, inner, given, 4) - wanted).abs().max() < 1e-4
    assert seen == [True] * 3
    assert cuda.captures == 1


@torch.no_grad()
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_what_was_in_buffers_before_changes_nothing(family: str) -> None:
    """Not even values that are not finite: masked ones are multiplied by zero."""
    _, backbone, inner = pair(family)
    given = prompts(backbone, 3, 20, 4)
    wanted = Static().rollout(backbone, inner, given, 4)
    (buffers,) = backbone.workspace[POOL].held
    for tensors in buffers.layers:
        for tensor in tensors.values():
            tensor[:3, ..., :23, :] = float("nan")
    assert Static().rollout(backbone, inner, given, 4).equal(wanted)
    (buffers,) = backbone.workspace[POOL].held
    spoilt = prompts(backbone, 5, 30)
    spoilt.x_BTD[3:] = float("nan")
    ends = []
    for executor in (executors.get("cached")(), Static()):
        feed, other = executor.session(backbone), executor.session(backbone)
        feed.takes_in = True
        feed.prefill(spoilt)
        feed.select([0, 2])
        other.prefill(prompts(backbone, 3, 20))
        feed.join(other)
        ends.append([feed.feed(token(backbone, 5)) for _ in range(2)])
    for plain, found in zip(*ends, strict=True):
        assert (plain - found).abs().max() < 1e-4


class Some:
    """Buffers of one byte a place."""

    def __init__(self, rows: int, capacity: int) -> None:
        self.rows, self.capacity, self.nbytes = rows, capacity, rows * capacity


def test_a_pool_is_bounded_and_hands_out_the_same_buffers_again() -> None:
    pool, small, large = BufferPool[Some](100), Some(2, 10), Some(8, 10)
    assert pool.take("text", 1, 1) is None
    for one in (small, large):
        assert pool.has_room(one.nbytes)
        pool.keep("text", one)
    assert pool.nbytes == 100
    assert not pool.has_room(1)
    pool.leave(large)
    pool.leave(small)
    pool.leave(Some(1, 1))  # was never kept
    assert pool.nbytes == 100
    assert pool.take("turn", 1, 1) is None
    assert pool.take("text", 2, 10) is small, "the first that was made"
    assert pool.take("text", 2, 10) is large
    pool.leave(large)
    assert pool.take("text", 3, 10) is large
    del large, one
    assert pool.nbytes == 20, "what a session lost is not counted"


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
        held = list[Any]()
        for buffers in backbone.workspace[POOL].held:
            state = buffers.state(2, 64)
            parts = [*state.buffers(), *state.cache.layers, *buffers.replays.values()]
            parts += [tensor for own in buffers.layers for tensor in own.values()]
            held += map(weakref.ref, [buffers, state, *parts])
        del buffers, state, parts
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


@pytest.mark.parametrize("links", ["default", "recursive"])
def test_a_system_that_is_dropped_frees_its_weights_and_buffers(
    links: str, no_gc: None, cuda: Cuda
) -> None:
    """Kept buffers and graphs must not hold the backbone that holds them, nor links that do."""
    how = {} if links == "default" else {"link": links, "inner": links}
    one, other = tiny_backbone("llama", 32), tiny_backbone("qwen3", 16)
    graph = lm.templates.sequential(planner=one, critic=other, solver=one, latent_steps=4, **how)
    system = graph.compile().load()
    system.run(QUESTIONS, executor="static", max_new_tokens=2)
    system.warm_up(batch_size=2, max_length=64, max_new_tokens=8, executor=Emulated())
    cuda.steps.clear()  # a real graph does not hold what it was captured from
    backbones = [
        weakref.ref(b) for b in {id(b): b for b in system.agent_backbones.values()}.values()
    ]
    buffers = [
        weakref.ref(one)
        for ref in backbones
        for one in ref().workspace[POOL].held  # type: ignore[union-attr]
    ]
    assert len(buffers) == 3, "turns and answers of one backbone, turns of the other"
    del system
    assert [ref for ref in (*backbones, *buffers) if ref() is not None] == []


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
    for rows, columns in itertools.product((1, 2, 4, 8, 16), (20, 70)):
        given = prompts(backbone, rows, columns)
        feed = Static(compile_step=True).session(backbone)
        feed.reserve(8)
        feed.roll(inner, feed.prefill(given), 3)
        feed.close()
        counts.append(len(compiled))
    assert all(after > before for before, after in itertools.pairwise(counts))
    made = len(compiled)
    feed = Static(compile_step=True).session(backbone)
    feed.roll(inner, feed.prefill(prompts(backbone, 13, 67)), 3)
    assert len(compiled) == made, "kept buffers keep their compiled step"


def test_nothing_is_compiled_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", None)
    system = of_template("sequential", "llama").compile().load()
    system.run(QUESTIONS, executor="static", max_new_tokens=2)
