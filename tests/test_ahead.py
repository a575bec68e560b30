"""Text whose steps are captured whole: the device chooses, and the host looks one step later."""

from __future__ import annotations

from typing import Any

import pytest

from latentmas.backbones import LoadedBackbone
from latentmas.engine.cuda_graphs import POOL
from latentmas.testing import TINY_FAMILIES
from tests.ahead import end_unequally, ends
from tests.emulated import Cuda, Emulated
from tests.teams import QUESTIONS, load64, of_template

STOPS = tuple("abcdefgh")
"""Strings that end one row in 32 at each token."""


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_tokens_are_those_of_the_oracle(
    family: str, cuda: Cuda, ahead: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows end at different times, and others join while they write."""
    system = load64(of_template("sequential", family))
    logits = LoadedBackbone.logits  # tiny models repeat their most likely token, not the least one
    monkeypatch.setattr(LoadedBackbone, "logits", lambda own, h_BD: -logits(own, h_BD))
    end_unequally(monkeypatch)
    samples = [f"{i} " + "x" * (7 * i % 40) for i in range(7)]
    how: dict[str, Any] = {"max_new_tokens": 24, "stop": STOPS}
    plain = system.run(samples, executor="reference", **how)
    for _ in range(2):
        before = cuda.captures
        found = system.run(samples, executor=Emulated(), batch_size=3, refill_threshold=0.3, **how)
        assert ends(found) == ends(plain)
    assert cuda.captures == before
    assert len({token for ids in plain.token_ids for token in ids}) > 2
    assert len(set(map(len, plain.token_ids))) > 2
    assert 1 in ahead and 3 in ahead


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_draws_are_those_of_the_oracle(family: str, cuda: Cuda, ahead: list[int]) -> None:
    system = load64(of_template("sequential", family))
    how: dict[str, Any] = {"max_new_tokens": 12, "do_sample": True, "num_return_sequences": 2}
    plain = system.run(QUESTIONS, executor="reference", **how)
    found = system.run(QUESTIONS, executor=Emulated(), batch_size=2, refill_threshold=0.5, **how)
    assert ends(found) == ends(plain)
    assert not ahead, "the host takes part in draws from all tokens"


@pytest.mark.parametrize("how", [{"repetition_penalty": 1.3}, {"retry": "math"}])
def test_steps_that_depend_on_the_host_wait_for_it(
    how: dict[str, Any], cuda: Cuda, ahead: list[int]
) -> None:
    """A retry leads a row on after its end, which must not have read one token more."""
    system = load64(of_template("sequential", "llama"))
    plain = system.run(QUESTIONS, executor="reference", max_new_tokens=12, **how)
    found = system.run(QUESTIONS, executor=Emulated(), max_new_tokens=12, **how)
    assert ends(found) == ends(plain)
    assert not ahead


def test_no_step_follows_the_last_token(cuda: Cuda, ahead: list[int]) -> None:
    """Rows at their limit are known to end, so nothing is fed for them."""
    system = load64(of_template("sequential", "llama"))
    found = system.run(QUESTIONS, executor=Emulated(), max_new_tokens=6)
    assert {len(ids) for ids in found.token_ids} == {6}
    assert len(ahead) == 5


def test_tokens_are_told_in_order_and_a_run_can_be_given_up(cuda: Cuda) -> None:
    system = load64(of_template("sequential", "llama"))
    wanted = system.run(QUESTIONS[:1], executor="cached", max_new_tokens=9).texts[0]
    assert "".join(system.stream(QUESTIONS[0], executor=Emulated(), max_new_tokens=9)) == wanted
    pieces = system.stream(QUESTIONS[0], executor=Emulated(), max_new_tokens=9)
    next(pieces)
    pieces.close()
    held = [one for b in system.agent_backbones.values() for one in b.workspace[POOL].held]
    assert "".join(system.stream(QUESTIONS[0], executor=Emulated(), max_new_tokens=9)) == wanted
    after = [one for b in system.agent_backbones.values() for one in b.workspace[POOL].held]
    assert set(map(id, held)) <= set(map(id, after))
