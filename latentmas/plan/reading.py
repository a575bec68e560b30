"""How long prompts are, and what an agent reads again in a later turn: estimated from templates.

A prompt is a row of parts: the template's own text, sample fields, texts that agents write, and
messages. Two turns of an agent share the parts that stand before the first difference; a message
always differs.
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
"""Fewer shared positions are not kept over rounds."""
SCAFFOLD = 5
"""Tokens that a chat template puts round a turn: a guess that fits most models."""

Turn = Rollout | Decode


class Part(NamedTuple):
    """A stretch of a prompt."""

    kind: str
    """`text` (the template's own), `field`, `words` (written by an agent) or `message`."""
    name: str
    """The text itself, the field, or the value that fills the slot."""
    tokens: int
    slot: str = ""


class Reading(Protocol):
    """Positions of prompts, estimated or counted."""

    def positions(self, turn: Turn) -> int | None:
        """Positions of a turn's prompt; None when they are not known."""
        ...

    def shared(self, first: Turn, later: Turn) -> int:
        """Positions at the beginning of a turn's prompt that an earlier one begins with too."""
        ...

    def repeated(self, first: Turn, later: Turn) -> int:
        """Positions of text, before and behind what differs, that two turns have in common."""
        ...


class Estimate:
    """Prompts as their templates let one expect them."""

    def __init__(
        self,
        plan: Plan,
        *,
        input_tokens: int | Mapping[str, int],
        characters_per_token: float,
    ) -> None:
        """Take what templates do not say.

        Args:
            plan: whose prompts.
            input_tokens: of each sample field: one number, or one by field.
            characters_per_token: of templates and constant texts.
        """
        self.plan = plan
        self.input_tokens = input_tokens
        self.characters_per_token = characters_per_token
        self._makers = {step.output: step for step in plan.steps}
        self._parts: dict[tuple[str, tuple[tuple[str, str], ...]], list[Part] | None] = {}

    def positions(self, turn: Turn) -> int | None:
        """As `Reading`; None when the template cannot be rendered without a sample."""
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
            except Exception:  # a filter or operator on the stand-in values, not on real ones
                self._parts[key] = None
        return self._parts[key]

    def _alike(self, first: Turn, later: Turn) -> tuple[int, int]:
        """Positions before the first difference, and those of text there and at the end."""
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
        """Positions that two texts have in common, where the first difference is inside them."""
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
            return None  # a loop or a filter has taken a stand-in apart
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
        """A slot filled by text: an agent's, or from outside."""
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
    """Equal parts at the beginning; messages of one slot and length count as equal."""
    count = 0
    for x, y in zip(a, b, strict=False):
        same = x == y or (x.kind == y.kind == "message" and x[2:] == y[2:])
        if not same:
            break
        count += 1
    return count


class _Field(str):
    """Stand-in for a sample field: text that also answers `field.name`, `field[0]` and loops."""

    def __getattr__(self, name: str) -> _Field:
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: object) -> _Field:
        return self

    def __iter__(self) -> Any:
        return iter([self])
