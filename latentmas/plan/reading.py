"""Prompt lengths, and text that agents reread in later turns, estimated from templates.

A prompt is a sequence of parts: the template's own text, sample fields, texts written by agents,
and messages. Two turns of an agent share the parts before the first difference; messages always
differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple, Protocol

from latentmas.plan.plan import Plan
from latentmas.plan.steps import Decode, Rollout, Transfer
from latentmas.prompts import render_prompt

__all__ = ["WORTHWHILE", "Estimate", "Part", "Reading"]

WORTHWHILE = 8
"""Minimum number of shared positions that are kept across rounds."""
SCAFFOLD = 5
"""Number of tokens that a chat template adds to a turn: an estimate that suits most models."""

Turn = Rollout | Decode


class Part(NamedTuple):
    """A part of a prompt."""

    kind: str
    """`text` (the template's own), `field`, `words` (written by an agent) or `message`."""
    name: str
    """The text itself, the field, or the value that fills the slot."""
    tokens: int
    slot: str = ""


class Reading(Protocol):
    """Positions of prompts, estimated or counted."""

    def positions(self, turn: Turn) -> int | None:
        """Number of positions of a turn's prompt; None if unknown."""
        ...

    def shared(self, first: Turn, later: Turn) -> int:
        """Number of leading positions that a turn's prompt shares with an earlier one."""
        ...

    def repeated(self, first: Turn, later: Turn) -> int:
        """Number of text positions that two turns share before and after the difference."""
        ...


class Estimate:
    """Prompt lengths estimated from templates."""

    def __init__(
        self,
        plan: Plan,
        *,
        input_tokens: int | Mapping[str, int],
        characters_per_token: float,
    ) -> None:
        """Set the lengths that templates do not determine.

        Args:
            plan: Plan whose prompts to estimate.
            input_tokens: Number of tokens of each sample field: one number, or by field.
            characters_per_token: Number of characters per token of templates and constant texts.
        """
        self.plan = plan
        self.input_tokens = input_tokens
        self.characters_per_token = characters_per_token
        self._makers = {step.output: step for step in plan.steps}
        self._parts: dict[tuple[str, tuple[tuple[str, str], ...]], list[Part] | None] = {}

    def positions(self, turn: Turn) -> int | None:
        """Same as in `Reading`; None if the template cannot be rendered without a sample."""
        parts = self.parts(turn)
        return None if parts is None else sum(part.tokens for part in parts)

    def shared(self, first: Turn, later: Turn) -> int:
        """As `Reading`."""
        return self._alike(first, later)[0]

    def repeated(self, first: Turn, later: Turn) -> int:
        """As `Reading`."""
        return self._alike(first, later)[1]

    def parts(self, turn: Turn) -> list[Part] | None:
        """The parts of a turn's prompt in their order."""
        key = (turn.agent, tuple(sorted(turn.inputs.items())))
        if key not in self._parts:
            try:
                self._parts[key] = self._render(turn)
            except Exception:  # caused by the stand-in values; real values may work
                self._parts[key] = None
        return self._parts[key]

    def _alike(self, first: Turn, later: Turn) -> tuple[int, int]:
        """Positions before the first difference, and text positions there and at the end."""
        before, now = self.parts(first), self.parts(later)
        if before is None or now is None:
            return 0, 0
        count = _common(before, now)
        head, tail = before[:count], _common(before[count:][::-1], now[count:][::-1])
        shared = 0
        for part in head:
            if part.kind == "message":
                break
            shared += part.tokens
        else:
            shared += self._begin_alike(before[count:], now[count:])
        text = [p for p in [*head, *now[len(now) - tail :]] if p.kind != "message"]
        repeated = sum(part.tokens for part in text)
        return shared, max(shared, repeated)

    def _begin_alike(self, before: Sequence[Part], now: Sequence[Part]) -> int:
        """Number of positions that two texts share if the first difference is inside them."""
        if not (before and now and before[0].kind == now[0].kind == "text"):
            return 0
        a, b = before[0].name, now[0].name
        same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        letters = min(len(a), len(b)) if same is None else same
        return int(letters / self.characters_per_token)

    def _render(self, turn: Turn) -> list[Part] | None:
        graph, agent = self.plan.graph, self.plan.graph.agent(turn.agent)
        latent = [slot for slot, name in turn.inputs.items() if self._is_message(name)]
        stand_ins: dict[str, Part] = {}
        values: dict[str, Any] = {}
        fields = {name: self._field(name) for name in graph.inputs}
        words = {s: self._words(s, name) for s, name in turn.inputs.items() if s not in latent}
        for name, part in (fields | words).items():
            marker = f"\ue000{len(stand_ins)}\ue001"
            stand_ins[marker], values[name] = part, _Field(marker)
        rendered = render_prompt(agent, values, latent)
        for marker, slot in rendered.markers.items():
            stand_ins[marker] = self._message(slot, turn.inputs[slot])
        parts = []
        for chat in rendered.turns:
            parts.append(Part("text", f"<{chat.role}>", SCAFFOLD))
            parts += self._split(chat.content, stand_ins)
        if any(part.kind == "text" and "\ue000" in part.name for part in parts):
            return None  # a loop or a filter has split a stand-in
        return [*parts, Part("text", "<assistant>", SCAFFOLD)]

    def _split(self, content: str, stand_ins: Mapping[str, Part]) -> list[Part]:
        if not stand_ins:
            return self._text(content)
        parts: list[Part] = []
        for piece in re.split("(" + "|".join(map(re.escape, stand_ins)) + ")", content):
            parts += [stand_ins[piece]] if piece in stand_ins else self._text(piece)
        return parts

    def _text(self, text: str) -> list[Part]:
        return [Part("text", text, ceil(len(text) / self.characters_per_token))] if text else []

    def _is_message(self, value: str) -> bool:
        return isinstance(self._makers.get(value), Transfer)

    def _message(self, slot: str, value: str) -> Part:
        graph, made = self.plan.graph, self._makers[value]
        return Part("message", value, graph.steps_of(graph.agent(made.agent)), slot)

    def _field(self, name: str) -> Part:
        tokens = self.input_tokens
        return Part("field", name, tokens if isinstance(tokens, int) else tokens[name])

    def _words(self, slot: str, value: str) -> Part:
        """A slot filled by text from an agent or from outside."""
        made = self._makers.get(value)
        if isinstance(made, Decode):
            return Part("words", value, made.max_new_tokens or 0, slot)
        outside = {source.name: source.text for source in self.plan.graph.text_sources}
        text = outside.get(value)
        if text is None:
            tokens = self.input_tokens
            count = tokens if isinstance(tokens, int) else tokens.get(value, 0)
            return Part("field", value, count, slot)
        return Part("field", value, ceil(len(text) / self.characters_per_token), slot)


def _common(a: Sequence[Part], b: Sequence[Part]) -> int:
    """Equal parts at the start; messages of the same slot and length count as equal."""
    count = 0
    for x, y in zip(a, b, strict=False):
        same = x == y or (x.kind == y.kind == "message" and x[2:] == y[2:])
        if not same:
            break
        count += 1
    return count


class _Field(str):
    """Stand-in for a sample field: a string that also supports `field.name`, `field[0]`, loops."""

    def __getattr__(self, name: str) -> _Field:
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: object) -> _Field:
        return self

    def __iter__(self) -> Any:
        return iter([self])
