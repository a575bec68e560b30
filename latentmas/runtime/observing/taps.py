"""Taps: read, or replace, what passes along an edge while a team runs.

Shapes: `B` batch, `K` latent steps, `D` width of the receiver.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from latentmas.errors import LatentMASError, UnknownNameError
from latentmas.plan import Combine, Decode, Plan, Rollout, Value, edge_labels, message_on

__all__ = ["Tap", "TapEdit", "Taps", "passing_texts"]

TapEdit = Callable[[str, Any], Any]
"""Takes a message's name and message_BKD, or its B texts; returns what arrives in their place."""


class Tap:
    """Reads one edge in every run until it is removed, and replaces what passes if it has an edit.

    `System.tap` makes taps. As a context manager a tap removes itself at the end; what it has read
    stays.
    """

    def __init__(self, taps: Taps, edge: str, edit: TapEdit | None) -> None:
        self.edge = edge
        """Id of the edge, `source->target.slot`."""
        self.messages: dict[str, Tensor] = {}
        """`"round1.planner->critic"` → message_BKD of the newest run, on the CPU, as it came to
        this tap, before its edit."""
        self.texts: dict[str, list[str]] = {}
        """The same for a text edge: a text for each sample."""
        self._taps, self._edit = taps, edit

    @property
    def removed(self) -> bool:
        """Whether it listens no more."""
        return self not in self._taps.open

    def remove(self) -> None:
        """Stop listening; a second call does nothing."""
        if not self.removed:
            self._taps.open.remove(self)

    def __enter__(self) -> Tap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        state = "removed" if self.removed else "listening"
        return f"<Tap on {self.edge!r}, {state}, {len(self.messages or self.texts)} read>"

    def _pass(self, name: str, value: Any) -> Any:
        """Note what passes, and edit it."""
        if isinstance(value, Tensor):
            _append(self.messages, name, value.detach().cpu())
        else:
            self.texts[name] = [*self.texts.get(name, []), *value]
        if self._edit is None:
            return value
        edited = self._edit(name, value)
        _check(f"the edit of the tap on {self.edge!r}", value, edited)
        return edited


class Taps:
    """The taps of a system, oldest first; each sees what the one before it has left."""

    def __init__(self) -> None:
        self.open: list[Tap] = []

    @property
    def edits(self) -> list[str]:
        """Ids of the edges on which something is replaced."""
        return [tap.edge for tap in self.open if tap._edit is not None]

    def add(self, plan: Plan, edge: str, edit: TapEdit | None) -> Tap:
        """A tap on an edge; arguments and errors as `System.tap`."""
        found = [e for e in plan.graph.edges if edge in (e.id, f"{e.source}->{e.target}")]
        if not found:
            known = [e.id for e in plan.graph.edges] + [
                f"{e.source}->{e.target}" for e in plan.graph.edges
            ]
            raise UnknownNameError("edge", edge, dict.fromkeys(known))
        if len(found) > 1:
            ids = ", ".join(repr(e.id) for e in found)
            raise LatentMASError(f"{edge!r} names {len(found)} edges; tap one of them: {ids}")
        self.open.append(Tap(self, found[0].id, edit))
        return self.open[-1]

    def begin(self) -> None:
        """A run starts: what was read before is forgotten."""
        for tap in self.open:
            tap.messages, tap.texts = {}, {}

    def forget(self, count: int) -> None:
        """A batch has failed: only what was read of the `count` rows before it stays."""
        for tap in self.open:
            tap.messages = {name: value[:count] for name, value in tap.messages.items()}
            tap.texts = {name: texts[:count] for name, texts in tap.texts.items()}

    def end(self, rows: Sequence[int], failed: Container[int] = ()) -> None:
        """A run has ended: what was read is put in the order of the samples.

        Args:
            rows: numbers of the samples, in the order in which they ran; of one that ran again,
                the last time counts.
            failed: those whose rows are left out.
        """
        last = {number: i for i, number in enumerate(rows)}
        place = [last[number] for number in sorted(last) if number not in failed]
        for tap in self.open:
            tap.messages = {name: value[place] for name, value in tap.messages.items()}
            tap.texts = {name: [texts[i] for i in place] for name, texts in tap.texts.items()}

    def through(self, also: TapEdit | None) -> Callable[[Value, Any], Any] | None:
        """An edit that passes everything through `also` and then each tap of its edge.

        None when there is nothing to do.
        """
        if not self.open and also is None:
            return None
        taps = list(self.open)

        def edit(passing: Value, content: Any) -> Any:
            if also is not None and isinstance(content, Tensor):  # texts are edited by taps alone
                edited = also(passing.name, content)
                _check(f"edit_message, for {passing.name!r},", content, edited)
                content = edited
            for tap in taps:
                if passing.edge == tap.edge:
                    content = tap._pass(passing.name, content)
            return content

        return edit


def passing_texts(plan: Plan, step: Rollout | Decode | Combine, slot: str) -> list[Value]:
    """The texts that fill a slot in a round, each named by its edge as a message would be."""
    labels = edge_labels(plan.graph.edges)
    return [
        message_on(edge, labels[edge.id], step.round - edge.delay)
        for edge in plan.graph.edges
        if (edge.target, edge.slot) == (step.agent, slot) and edge.delay < step.round
    ]


def _append(found: dict[str, Tensor], name: str, value: Tensor) -> None:
    found[name] = torch.cat([found[name], value]) if name in found else value


def _check(who: str, value: Any, edited: Any) -> None:
    """What an edit may return: B messages of width D, or B texts."""
    if isinstance(value, Tensor):
        fits = isinstance(edited, Tensor) and edited.ndim == 3
        if fits and (edited.shape[0], edited.shape[2]) == (value.shape[0], value.shape[2]):
            return
        found = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
        raise ValueError(
            f"{who} made {found} of a message of shape {tuple(value.shape)}; rows and width must "
            "stay"
        )
    if not isinstance(edited, list) or [type(text) for text in edited] != [str] * len(value):
        raise ValueError(
            f"{who} made {edited!r:.60} of {len(value)} text{'s' * (len(value) != 1)}; give a "
            "list of as many strings"
        )
