"""Changes of messages on their way: taps with edits, open for one run.

Shapes: `B` batch (one question), `K` latent steps, `D` width of the receiver.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from latentmas.backbones import outside_ids
from latentmas.errors import LatentMASError
from latentmas.plan import edge_labels, message_on
from latentmas.runtime import System
from latentmas.serve.playground.asking import Ask, Change

__all__ = ["changed"]

Edit = Callable[[str, Any], Any]
"""Takes the name of a message and the message, or texts; returns what arrives in their place."""
Passed = Mapping[str, Any]
"""Name of a message → what passed for the other question."""


@contextmanager
def changed(system: System, ask: Ask, run_other: Callable[[], object]) -> Iterator[None]:
    """Apply the changes of a request to every run inside.

    Args:
        system: Team to change.
        ask: Request with the changes.
        run_other: Function that runs the team on the other question; called only if a change
            uses its messages.
    """
    passed = _passed(system, ask.changes, run_other)
    with ExitStack() as taps:
        for change in ask.changes:
            names = _names(system, change, ask.rounds or system.plan.graph.rounds)
            edit = _only(names, _edit(system, change, passed))
            taps.enter_context(system.tap(change.edge, edit))
        yield


def _passed(
    system: System, changes: Sequence[Change], run_other: Callable[[], object]
) -> dict[str, Any]:
    """What passes along the edges for the other question."""
    edges = {change.edge for change in changes if change.how == "question"}
    if not edges:
        return {}
    with ExitStack() as stack:
        taps = [stack.enter_context(system.tap(edge)) for edge in sorted(edges)]
        run_other()
    return {name: value for tap in taps for name, value in (tap.messages | tap.texts).items()}


def _names(system: System, change: Change, rounds: int) -> set[str]:
    """Names of the messages to change."""
    edges = system.plan.graph.edges
    edge = next(edge for edge in edges if edge.id == change.edge)
    label = edge_labels(edges)[edge.id]
    made = range(1, rounds + 1) if change.round is None else [change.round]
    return {message_on(edge, label, round).name for round in made}


def _only(names: set[str], edit: Edit) -> Edit:
    return lambda name, value: edit(name, value) if name in names else value


def _edit(system: System, change: Change, passed: Passed) -> Edit:
    if change.how == "zero":
        return _zeros
    if change.how == "shuffle":
        return _shuffled
    if change.how == "words":
        return lambda name, value: _words(system, change, value)
    return lambda name, value: _of_other(passed, name, value)


def _zeros(name: str, value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, Tensor) else [""] * len(value)


def _shuffled(name: str, value: Any) -> Any:
    """Latent steps, or the words of a text, in another order, which is always the same."""
    if isinstance(value, Tensor):
        return value[:, _order(value.shape[1], f"{name} has one latent step")]
    return [_shuffled_text(name, text) for text in value]


def _shuffled_text(name: str, text: str) -> str:
    words = text.split()
    return " ".join(words[i] for i in _order(len(words), f"{name} has fewer than two words"))


def _order(count: int, found: str) -> list[int]:
    """A permutation in which nothing stays in its place."""
    if count < 2:
        raise LatentMASError(f"{found}, which cannot be shuffled; choose another change")
    order = list(range(count))
    random.Random(count).shuffle(order)
    # Each takes the place of the next in a shuffled circle, so nothing stays where it was.
    following = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [following[place] for place in range(count)]


def _words(system: System, change: Change, value: Any) -> Any:
    """The receiver's own embeddings of words, or the words."""
    if not isinstance(value, Tensor):
        return [change.words] * len(value)
    edge = next(edge for edge in system.plan.graph.edges if edge.id == change.edge)
    receiver = system.backbone_of(edge.target)
    ids = outside_ids(receiver.tokenizer, change.words)
    if not ids:
        raise LatentMASError(
            f"the words for {change.edge!r} are empty; write some, or replace with zeros"
        )
    words_KD = receiver.embed(torch.tensor(ids))
    return words_KD.to(value).expand(len(value), -1, -1)


def _of_other(passed: Passed, name: str, value: Any) -> Any:
    if name not in passed:
        raise LatentMASError(f"the other question sent no {name!r}")
    other = passed[name]
    return other.to(value) if isinstance(value, Tensor) else other
