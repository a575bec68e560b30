"""From a rendered prompt through the chat template to segments of text and slots.

The chat template sees a nonce in place of every value from outside and of every message. So it
cannot confuse them with its own text, and it is known whether each arrived exactly once.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError

from latentmas.backbones import LoadedBackbone, chat_text
from latentmas.errors import DataError
from latentmas.prompts import ChatMessage, Segment, render_prompt, segments_of, template_variables
from latentmas.spec import AgentSpec

__all__ = ["Nonces", "Slot", "assemble", "check_chat_template"]

FILLER = " and so on" * 200 + "\n\n"
"""Text between two nonces when a chat template is tried, so that a cut is noticed: after so many
characters, or at the end of a line."""


class Slot(NamedTuple):
    """The place of a message in a prompt."""

    name: str


class Nonces:
    """Strings that no text contains by accident, each of which stands for a segment or a slot.

    They contain letters of both cases and characters that HTML escapes, so that a template that
    changes its content does not return them unchanged.
    """

    _pattern = re.compile(r"(<&Value\d+:\d+&>)")
    """Whatever looks like one; `held` knows which of them are."""

    def __init__(self) -> None:
        self._prefix = f"<&Value{secrets.randbits(96)}:"
        self.held: dict[str, Segment | Slot] = {}

    def hide(self, piece: Segment | Slot) -> str:
        """A nonce for a piece."""
        nonce = f"{self._prefix}{len(self.held)}&>"
        self.held[nonce] = piece
        return nonce

    def hide_text(self, text: str) -> str:
        """A nonce for a text from outside; white space round it stays, for templates that trim."""
        core = text.strip()
        if not core:
            return text
        before, _, after = text.partition(core)
        return before + self.hide(Segment(core, own=False)) + after

    def split(self, text: str) -> list[Segment | Slot]:
        """The template's own text, and what the nonces in it stand for."""
        parts = self._pattern.split(text)
        return [self.held.get(part) or Segment(part, own=True) for part in parts if part]

    def counts(self, text: str) -> dict[str, int]:
        """How often each nonce stands in a text."""
        found = Counter(self._pattern.findall(text))
        return {nonce: found[nonce] for nonce in self.held}


def assemble(
    backbone: LoadedBackbone,
    agent: AgentSpec,
    sample: Mapping[str, Any],
    latent_slots: Sequence[str],
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[Segment | Slot]:
    """A prompt as the backbone reads it.

    Args:
        backbone: Backbone of the agent.
        agent: Agent that reads the prompt.
        sample: Sample fields, and slots that contain text.
        latent_slots: Slots that contain messages.
        tools: Schemas for the chat template.

    Raises:
        DataError: the prompt or the chat template cannot be rendered, or the chat template loses,
            changes or repeats a value.
    """
    try:
        rendered = render_prompt(agent, sample, latent_slots)
    except (TemplateError, ValueError, TypeError, ArithmeticError, LookupError) as error:
        raise DataError(
            f"the prompt of agent {agent.name!r} cannot be rendered: {error}"
        ) from error
    nonces = Nonces()
    turns = [
        ChatMessage(turn.role, _hidden(turn, rendered.markers, nonces)) for turn in rendered.turns
    ]
    text = _chat_text(backbone, agent, turns, tools)
    for nonce, count in nonces.counts(text).items():
        if count != 1:
            raise _unfaithful(backbone, agent, _described(nonces.held[nonce], sample), count)
    return nonces.split(text)


def check_chat_template(
    backbone: LoadedBackbone, agent: AgentSpec, tools: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Try the chat template on a system and a user turn, without tools and with them.

    Args:
        backbone: Backbone of the agent.
        agent: Agent whose turns are tried.
        tools: Schemas for the chat template.

    Raises:
        DataError: the chat template cannot be rendered, or loses, changes or repeats content.
    """
    if not backbone.tokenizer.chat_template:
        return
    for offered in (list(tools), []) if tools else ([],):
        nonces, turns = Nonces(), []
        for role, template in (("system", agent.system), ("user", agent.prompt)):
            if template is not None:
                what = Slot(_turn_with_slots(role, template))
                turns.append(ChatMessage(role, FILLER.join(nonces.hide(what) for _ in range(3))))
        text = _chat_text(backbone, agent, turns, offered)
        for nonce, count in nonces.counts(text).items():
            if count != 1:
                raise _unfaithful(backbone, agent, str(nonces.held[nonce][0]), count)


def _turn_with_slots(role: str, template: str) -> str:
    slots = ", ".join(f"{{{{ {name} }}}}" for name in sorted(template_variables(template)))
    return f"the {role} turn" + (f" with {slots}" if slots else "")


def _hidden(turn: ChatMessage, markers: Mapping[str, str], nonces: Nonces) -> str:
    """A turn's content with nonces in place of all that is not the template's own."""
    found = []
    for segment in segments_of(turn.content):
        if segment.own:
            found.append(segment.text)
            continue
        for part in _cut(segment.text, markers):
            slot = markers.get(part)
            found.append(nonces.hide_text(part) if slot is None else nonces.hide(Slot(slot)))
    return "".join(found)


def _cut(text: str, markers: Iterable[str]) -> list[str]:
    """A text cut before and after each marker, without a regular expression for each prompt."""
    parts = [text]
    for marker in markers:
        cut = (part.split(marker) for part in parts)
        parts = [piece for rest in cut for piece in (rest[0], *_after(marker, rest[1:]))]
    return parts


def _after(marker: str, rest: Iterable[str]) -> Iterator[str]:
    for part in rest:
        yield marker
        yield part


def _chat_text(
    backbone: LoadedBackbone,
    agent: AgentSpec,
    turns: Sequence[ChatMessage],
    tools: Sequence[Mapping[str, Any]],
) -> str:
    try:
        return chat_text(backbone.tokenizer, turns, agent.chat_options, tools)
    except TemplateError as error:
        raise DataError(
            f"the chat template of backbone {backbone.planned.spec.source!r} cannot be rendered "
            f"for agent {agent.name!r}: {error}"
        ) from error


def _described(piece: Segment | Slot, sample: Mapping[str, Any]) -> str:
    if isinstance(piece, Slot):
        return f"slot {piece.name!r}"
    names = [name for name, value in sample.items() if str(value).strip() == piece.text]
    return f"field {names[0]!r}" if names else f"the value {piece.text!r:.60}"


def _unfaithful(backbone: LoadedBackbone, agent: AgentSpec, what: str, count: int) -> DataError:
    how = "loses, cuts or changes" if count == 0 else "repeats"
    return DataError(
        f"the chat template of backbone {backbone.planned.spec.source!r} {how} {what} of agent "
        f"{agent.name!r} (found {count} times, expected once); a chat template must write the "
        "content of each turn exactly once and unchanged: correct `chat_template` in the model's "
        "tokenizer, or choose another backbone; where only the system turn is affected, move its "
        "text into the agent's prompt"
    )
