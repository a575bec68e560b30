"""Draws within a captured step: the tokens are those of draws outside of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import latentmas as lm
from latentmas.engine import MOST_LIKELY
from latentmas.generation import Sampling, chooser_for, pick
from latentmas.generation.drawing import CANDIDATES, TopCandidates
from latentmas.runtime import OpenBatch
from tests.ahead import count_ahead, end_unequally, ends
from tests.emulated import Cuda, Emulated
from tests.teams import QUESTIONS, load64, of_template

SAMPLES = [f"{i} " + "x" * (7 * i % 40) for i in range(5)]
SEEDS = (0, 2, 4, 6, 7)
"""With these, the rows of `SAMPLES` end at three or more different times."""
DRAWN: dict[str, Any] = {"do_sample": True, "max_new_tokens": 14}


# --- the choice itself ------------------------------------------------------------------------

filtered = st.builds(
    Sampling,
    do_sample=st.just(True),
    temperature=st.sampled_from([0.05, 0.6, 1.0, 3.0]) | st.floats(0.01, 100.0),
    top_p=st.sampled_from([0.1, 0.5, 0.95, 1.0]) | st.floats(1e-6, 1.0),
    top_k=st.sampled_from([1, 5, 50, 64, 65, CANDIDATES]) | st.integers(1, CANDIDATES),
    min_p=st.none() | st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0.0, 1.0),
)


@given(
    seed=st.integers(0, 2**31),
    width=st.sampled_from([1, 7, 300, 3000]),
    levels=st.none() | st.sampled_from([1, 2, 50]),
    odd=st.none() | st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    rows=st.lists(
        st.tuples(filtered, st.floats(0, 1, exclude_max=True, width=32)), min_size=1, max_size=4
    ),
)
def test_each_row_draws_what_it_draws_alone_and_outside(
    seed: int,
    width: int,
    levels: int | None,
    odd: float | None,
    rows: list[tuple[Sampling, float]],
) -> None:
    """Whatever the settings of the other rows, and the number of candidates that they need."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(len(rows), width, generator=generator)
    if levels is not None:  # many scores are equal
        logits = (logits * levels).round() / levels
    if odd is not None:
        logits[0, int(torch.randint(width, (), generator=generator))] = odd
    chooser = chooser_for([sampling for sampling, _ in rows])
    assert chooser is not None
    numbers = [TopCandidates.numbers(u, own.temperature, own.filters) for own, u in rows]
    found = chooser.choose(logits, torch.tensor(numbers, dtype=torch.float64)).tolist()
    alone = [
        int(pick(logits[i : i + 1], sampling, torch.tensor([u])))
        for i, (sampling, u) in enumerate(rows)
    ]
    assert found == alone


def test_a_choice_reads_nothing_back_and_rows_out_of_use_do_no_harm() -> None:
    """On the device `meta` no value can be read; in a buffer that is new, all numbers are zero."""
    numbers = torch.zeros(3, 5, dtype=torch.float64)
    chooser = TopCandidates.of(50)
    assert chooser.choose(torch.empty(3, 900, device="meta"), numbers.to("meta")).shape == (3,)
    for logits in (torch.zeros(3, 900), torch.full((3, 900), float("nan"))):
        assert chooser.choose(logits, numbers).tolist() == [0, 0, 0]


def test_settings_that_a_step_can_choose_by() -> None:
    """A penalty, a draw from all tokens, and rows of which only some draw are left to the host."""
    drawn, greedy = Sampling(do_sample=True, top_k=50), Sampling()
    assert chooser_for([greedy, greedy]) is MOST_LIKELY
    cooler = Sampling(do_sample=True, top_k=65, temperature=0.5, top_p=0.9, min_p=0.1)
    chooser, other = chooser_for([drawn]), chooser_for([drawn, cooler])
    assert chooser is not None and other is not None
    assert (chooser.key, other.key) == (("candidates", 64), ("candidates", 128))
    for sampling in (
        Sampling(do_sample=True, top_k=50, repetition_penalty=1.1),
        Sampling(repetition_penalty=1.1),
        Sampling(do_sample=True, top_p=0.9),
        Sampling(do_sample=True, top_k=CANDIDATES + 1),
    ):
        assert chooser_for([sampling]) is None
        assert chooser_for([drawn, sampling]) is None
    assert chooser_for([drawn, greedy]) is None


# --- runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_k", [1, 5, 50])
@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    temperature=st.sampled_from([0.3, 1.0, 4.0]),
    top_p=st.sampled_from([0.6, 0.95, 1.0]),
    min_p=st.sampled_from([None, 0.2]),
    seed=st.sampled_from(SEEDS),
)
def test_runs_equal_those_of_the_oracle(
    top_k: int, temperature: float, top_p: float, min_p: float | None, seed: int
) -> None:
    """Rows end at different times, and others join while they write."""
    how = {**DRAWN, "top_k": top_k, "temperature": temperature, "top_p": top_p, "min_p": min_p}
    with pytest.MonkeyPatch.context() as patch:
        cuda, ahead = Cuda(patch), count_ahead(patch)
        end_unequally(patch)
        system = load64(of_template("distillation", "llama"))
        plain = system.run(SAMPLES, executor="reference", seed=seed, **how)
        for _ in range(2):
            before = cuda.captures
            found = system.run(
                SAMPLES, executor=Emulated(), batch_size=3, refill_threshold=0.3, seed=seed, **how
            )
            assert ends(found) == ends(plain)
        assert cuda.captures == before > 0
    assert len(set(map(len, plain.token_ids))) > 2
    assert len(ahead) > 20


@pytest.mark.parametrize("family", ["gemma3_text", "qwen3_5_text"])
def test_several_answers_to_a_sample(family: str, cuda: Cuda, ahead: list[int]) -> None:
    system = load64(of_template("sequential", family))
    how = {**DRAWN, "top_k": 20, "num_return_sequences": 2}
    plain = system.run(QUESTIONS, executor="reference", **how)
    found = system.run(QUESTIONS, executor=Emulated(), batch_size=2, refill_threshold=0.5, **how)
    assert ends(found) == ends(plain)
    assert len({tuple(ids) for own in plain.sequence_ids for ids in own}) > 3
    assert ahead


@pytest.mark.parametrize(
    "how", [{"top_k": CANDIDATES + 1}, {"top_p": 0.9}, {"top_k": 5, "repetition_penalty": 1.3}]
)
def test_other_draws_wait_for_the_host(how: dict[str, Any], cuda: Cuda, ahead: list[int]) -> None:
    system = load64(of_template("sequential", "llama"))
    plain = system.run(QUESTIONS, executor="reference", **DRAWN, **how)
    assert ends(system.run(QUESTIONS, executor=Emulated(), **DRAWN, **how)) == ends(plain)
    assert not ahead


@pytest.mark.parametrize("mixed", [False, True])
def test_rows_of_other_settings_join_and_leave(mixed: bool, cuda: Cuda, ahead: list[int]) -> None:
    """A token that has been chosen is chosen again when others join; its row draws no other number.

    While rows of which only some draw write together, the host chooses.
    """
    system = load64(of_template("distillation", "llama"))
    batch, found = OpenBatch(system), dict[int, str]()
    batch._executor = Emulated()
    options = [
        lm.RunOptions(**DRAWN, top_k=top_k, temperature=heat, seed=(top_k,))
        for top_k, heat in ((20, 1.0), (70, 3.0), (3, 0.5))
    ]
    options.insert(2, lm.RunOptions(max_new_tokens=4, seed=(0,)) if mixed else options[1])
    counts = list[int]()
    with batch.active():
        for step in range(40):
            if step % 3 == 0 and step // 3 < len(options):
                batch.join([{"question": f"{step}"}], options[step // 3], lambda event: None)
            before = len(ahead)
            batch.advance()
            counts.append(len(ahead) - before)
            for group, _, end in batch.finished():
                found[int(group.walk.samples[0]["question"])] = end.end.texts[0]
    for step, own in enumerate(options):
        assert found[3 * step] == system.run([f"{3 * step}"], options=own, executor="cached").text
    assert sum(counts[:3]) == 3 and sum(counts[6:9]) == (0 if mixed else 3)
    assert len(ahead) > 12


def test_a_warm_up_captures_draws(cuda: Cuda) -> None:
    system = of_template("distillation", "llama").compile().load()
    limits: dict[str, Any] = {"batch_size": 3, "max_new_tokens": 14, "executor": Emulated()}
    done = system.warm_up(**limits, max_length=200, top_k=50)
    assert done.captures == cuda.captures > 3
    how = {"do_sample": True, "top_p": 0.9, **limits}
    drawn = system.run(SAMPLES, top_k=33, temperature=1.7, **how)
    assert cuda.captures == done.captures
    how["executor"] = "cached"
    assert drawn.token_ids == system.run(SAMPLES, top_k=33, temperature=1.7, **how).token_ids
    assert system.warm_up(**limits, max_length=200).captures > 0, "the most likely tokens"
    assert system.warm_up(**limits, max_length=200, top_k=CANDIDATES + 1).captures == 0
    with pytest.raises(lm.LatentMASError, match="top_k"):
        system.warm_up(top_k=0)
