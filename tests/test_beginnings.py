"""What all prompts of a run begin with is read once; long prompts are read in pieces. fp64."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import latentmas as lm
from latentmas.backbones import LoadedBackbone
from latentmas.engine.reuse import beginnings
from latentmas.engine.sessions import cached, prompts
from latentmas.testing import TINY_FAMILIES
from tests.emulated import Cuda, Emulated
from tests.teams import load64, tiny

EXAMPLES = "".join(f"Question: {n} + {n}? Answer: {n + n}. " for n in range(12))
QUESTIONS = ["3 + 4?", "a longer question, of more words", "2"] * 2


class Reads:
    """Rows and positions of each call that reads more than one position."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[tuple[int, int]] = []
        plain = LoadedBackbone.step

        def step(backbone: Any, x_BTD: Any, *args: Any, **options: Any) -> Any:
            if x_BTD.shape[1] > 1:
                self.shapes.append(tuple(x_BTD.shape[:2]))
            return plain(backbone, x_BTD, *args, **options)

        monkeypatch.setattr(LoadedBackbone, "step", step)

    def positions(self) -> int:
        """Positions of all rows that were read since this was last asked."""
        count = sum(rows * columns for rows, columns in self.shapes)
        self.shapes.clear()
        return count


def team(family: str, *, head: str = "", rounds: int = 2) -> lm.System:
    backbone = tiny(family, 16)
    graph = lm.Graph("pair", inputs=["examples", "question"], rounds=rounds, latent_steps=2)
    own = head + "{{ examples }}{{ question }} "
    back = "{% if back %}{{ back }}{% endif %} go" if rounds > 1 else "go"
    graph.add_agent("one", backbone, prompt=own + back)
    graph.add_agent("two", backbone, prompt=own + "{{ one }} go", max_new_tokens=3)
    graph.connect("one", "two")
    if rounds > 1:
        graph.feedback("two", "one.back")
    return load64(graph.output("two"))


def rows(examples: str = EXAMPLES) -> list[dict[str, str]]:
    return [{"examples": examples, "question": question} for question in QUESTIONS]


def compare(
    system: lm.System, samples: list[dict[str, str]], executor: str = "cached", **options: Any
) -> None:
    """An executor against the oracle, which reads everything."""
    results = [
        system.run(samples, executor=name, record=("messages",), **options)
        for name in ("reference", executor)
    ]
    plain, fast = results
    assert fast.token_ids == plain.token_ids
    assert fast.messages is not None
    assert plain.messages is not None
    for name, message in plain.messages.items():
        assert (message - fast.messages[name]).abs().max() / message.abs().max() < 1e-4, name


@pytest.mark.parametrize("executor", ["cached", "static"])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_shared_beginning_changes_nothing(family: str, executor: str) -> None:
    compare(team(family), rows(), executor)


@pytest.mark.parametrize("executor", ["cached", "static"])
def test_rows_that_share_a_beginning_end_and_join(executor: str) -> None:
    options: dict[str, Any] = {"batch_size": 4, "refill_threshold": 0.5, "max_new_tokens": 12}
    system = team("llama", rounds=1)
    compare(system, rows() * 2, executor, stop=list("etaoin"), **options)
    options |= {"num_return_sequences": 2, "do_sample": True, "seed": 1}
    compare(system, rows(), executor, **options)


def test_captured_steps_follow_a_shared_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, system, samples = Cuda(monkeypatch), team("llama"), rows() * 2
    plain, reads = system.run(samples, executor="reference"), Reads(monkeypatch)
    for _ in range(2):
        before = cuda.captures
        found = system.run(samples, executor=Emulated(), batch_size=6, refill_threshold=0.5)
        assert found.token_ids == plain.token_ids
        assert reads.positions() < 12 * len(EXAMPLES)
    assert cuda.captures == before > 0


@pytest.mark.parametrize("executor", ["cached", "static"])
def test_rows_read_their_examples_together(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two agents begin alike, and each begins its second round as its first."""
    system, reads = team("llama"), Reads(monkeypatch)
    system.run(rows(), executor=executor)
    together = reads.positions()
    assert together < 6 * len(EXAMPLES)
    monkeypatch.setattr(prompts, "beginning_of", lambda *_: ())
    system.run(rows(), executor=executor)
    assert reads.positions() > 2 * 6 * len(EXAMPLES)


def test_a_run_keeps_no_short_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    system, reads = team("llama", rounds=1), Reads(monkeypatch)
    system.run(rows(examples="Add. "), executor="cached")
    assert [count for count, _ in reads.shapes] == [6, 6]


def test_a_long_head_of_a_template_is_read_once_for_all_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = team("llama", head="Explain each step before you answer. " * 10, rounds=1)
    compare(system, rows()[:1])
    reads = Reads(monkeypatch)
    system.run(rows(examples="")[1:2], executor="cached")
    assert all(columns < 100 for _, columns in reads.shapes)
    assert len(reads.shapes) == 2


def test_other_rows_do_not_change_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's numbers follow from its own rows."""
    system = team("llama", rounds=1)
    first = system.run(rows(), executor="cached", record=("messages",)).messages
    system.run(rows(examples=EXAMPLES[:300]), executor="cached")
    again = system.run(rows(), executor="cached", record=("messages",)).messages
    assert first is not None
    assert again is not None
    assert all(torch.equal(message, again[name]) for name, message in first.items())


def test_threads_keep_beginnings_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many are kept, so that one thread counts them while others put theirs there."""
    backbone = next(iter(team("llama").agent_backbones.values()))
    read = beginnings._read(backbone, tuple(range(5, 15)))
    monkeypatch.setattr(beginnings, "_read", lambda *_: read)
    monkeypatch.setattr(beginnings, "_version", lambda *_: 0)
    monkeypatch.setattr(beginnings, "MOST", 500)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda n: beginnings.state_after(backbone, (n,), 2), range(3000))
            assert all(state.length == 10 for state in found)
    finally:
        sys.setswitchinterval(before)
    assert len(backbone.workspace[beginnings.KEY]) == 500


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_pieces_change_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows whose padding fills the first pieces, and pieces of a few columns."""
    system = team(family)
    monkeypatch.setattr(cached, "PIECE", 60)
    compare(system, [*rows(examples=""), {"examples": EXAMPLES[:90], "question": "?"}])


def test_a_long_prompt_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    system, reads = team("llama", rounds=1), Reads(monkeypatch)
    monkeypatch.setattr(cached, "PIECE", 120)
    system.run(rows(examples="")[:3], executor="cached")
    assert len(reads.shapes) > 2
    assert all(count * columns <= 120 for count, columns in reads.shapes)
