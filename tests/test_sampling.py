"""Fast sampling draws what plain sampling draws, from every kind of scores."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from latentmas.generation import Sampling, drawing, pick
from latentmas.generation.penalty import WrittenTokens
from tests.plain_sampling import plain_penalty, plain_pick
from tests.teams import QUESTIONS, sequential

LARGE = 151_936
NAN, INF = math.nan, math.inf

settings = st.builds(
    Sampling,
    do_sample=st.just(True),
    temperature=st.sampled_from([0.05, 0.6, 1.0, 3.0]) | st.floats(0.01, 100.0),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 0.95, 0.999, 1.0]) | st.floats(1e-6, 1.0),
    top_k=st.none() | st.integers(1, 3000),
    min_p=st.none() | st.sampled_from([0.0, 0.01, 0.1, 1.0]) | st.floats(0.0, 1.0),
)
draws = st.floats(0, 1, exclude_max=True, width=32)


def same(logits: Tensor, sampling: Sampling, uniform: Tensor) -> None:
    """Fast and plain sampling agree on the whole batch and on each row alone."""
    found = pick(logits, sampling, uniform).tolist()
    assert found == plain_pick(logits, sampling, uniform).tolist()
    rows = range(len(logits))
    assert found == [int(pick(logits[i : i + 1], sampling, uniform[i : i + 1])) for i in rows]


@given(
    logits=st.lists(
        st.sampled_from([-INF, -2.0, -0.0, 0.0, 0.5, 1.0, 4.0, INF, NAN]) | st.floats(-30, 30),
        min_size=1,
        max_size=40,
    ),
    sampling=settings,
    u=draws,
)
def test_in_small_vocabularies(logits: list[float], sampling: Sampling, u: float) -> None:
    same(torch.tensor([logits]), sampling, torch.tensor([u]))


@given(
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.0, 0.3, 1.0, 3.0, 10.0]),
    levels=st.none() | st.sampled_from([1, 2, 5, 50]),
    padded=st.booleans(),
    odd=st.none() | st.sampled_from([NAN, INF, -INF]),
    sampling=settings,
    u=st.lists(draws, min_size=3, max_size=3),
)
def test_in_vocabularies_with_more_tokens_than_candidates(
    seed: int,
    spread: float,
    levels: int | None,
    padded: bool,
    odd: float | None,
    sampling: Sampling,
    u: list[float],
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 5 * drawing.CANDIDATES, generator=generator) * spread
    if levels is not None:  # many scores are equal
        logits = (logits * levels).round() / levels
    if padded:  # the head is wider than the tokenizer
        logits[:, -200:] = -INF
    if odd is not None:
        logits[1, int(torch.randint(logits.shape[1], (), generator=generator))] = odd
    same(logits, sampling, torch.tensor(u))


@pytest.mark.parametrize("spread", [0.1, 1.0, 2.0, 4.0, 8.0])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(do_sample=True, top_p=0.95),
        Sampling(do_sample=True, temperature=0.7, top_p=0.8, top_k=20),
        Sampling(do_sample=True, min_p=0.05),
        Sampling(do_sample=True, temperature=1.5),
    ],
    ids=["top-p", "top-k", "min-p", "all"],
)
def test_in_a_large_vocabulary(spread: float, sampling: Sampling) -> None:
    generator = torch.Generator().manual_seed(int(10 * spread))
    logits = torch.randn(4, LARGE, generator=generator) * spread
    for dtype in (torch.float32, torch.bfloat16):  # in bfloat16 many scores are equal
        same(logits.to(dtype), sampling, torch.rand(4, generator=generator))


def test_peaked_rows_are_decided_without_a_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, LARGE, generator=generator)
    logits[:, :40] += 12
    logits[5] = 0.0  # only this row has no candidates that decide it
    sorted_rows = list[int]()
    draw_sorted = drawing._draw_sorted

    def counted(scores_BV: Tensor, filters: drawing.Filters, uniform_B1: Tensor) -> Tensor:
        sorted_rows.append(len(scores_BV))
        return draw_sorted(scores_BV, filters, uniform_B1)

    monkeypatch.setattr(drawing, "_draw_sorted", counted)
    uniform = torch.linspace(0.03, 0.93, 8)
    same(logits[:5], Sampling(do_sample=True, top_p=0.95), uniform[:5])
    assert sorted_rows == []
    same(logits, Sampling(do_sample=True, top_p=0.95), uniform)
    assert sorted_rows == [1, 1]  # in the batch, and alone


# --- the repetition penalty ---------------------------------------------------------------------


@given(data=st.data(), penalty=st.sampled_from([0.5, 1.3, 50.0]))
def test_the_penalty_is_that_of_whole_histories(data: st.DataObject, penalty: float) -> None:
    written, histories = WrittenTokens(), list[list[int]]()
    tokens = st.lists(st.integers(0, 9), max_size=4)
    for _ in range(data.draw(st.integers(1, 6))):
        joining = data.draw(st.integers(0, 2))
        written.add_rows(joining)
        histories += [[] for _ in range(joining)]
        kept = data.draw(st.permutations(range(len(histories))))
        kept = kept[: data.draw(st.integers(0, len(kept)))]
        written.select(kept)
        histories = [histories[i] for i in kept]
        new = [data.draw(tokens) for _ in histories]
        written.write(list(enumerate(new)))
        histories = [old + added for old, added in zip(histories, new, strict=True)]
        logits = torch.randn(len(histories), 10)
        expected = plain_penalty(logits, histories, penalty)
        written.penalise(logits, [penalty] * len(logits))
        assert torch.equal(logits, expected)


def test_rows_that_leave_and_join_keep_their_own_penalty() -> None:
    system = sequential().compile().load()
    options = {"do_sample": True, "temperature": 2.0, "repetition_penalty": 1.7, "seed": 3}
    questions = [*QUESTIONS, *(f"{question} again" for question in QUESTIONS)]
    limits = {"max_new_tokens": 12, **options}
    together = system.run(questions, batch_size=6, **limits).token_ids
    assert system.run(questions, batch_size=2, refill_threshold=0.5, **limits).token_ids == together
    assert system.run(questions, batch_size=1, **limits).token_ids == together
    free = system.run(questions, **{**limits, "repetition_penalty": 1.0}).token_ids
    assert together != free
