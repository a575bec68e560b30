"""From rendered prompts to left-padded batches of input embeddings, with messages spliced in.

Shapes: `B` batch, `T` positions of the longest prompt, `K` latent steps, `D` width,
`N` spliced rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jinja2 import TemplateError
from torch import Tensor
from torch.nn import functional as F
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from latentmas.backbones import LoadedBackbone
from latentmas.errors import DataError
from latentmas.runtime.prefixes import MESSAGE, PADDING, Prefix
from latentmas.spec import AgentSpec
from latentmas.spec.prompts import Rendered, Turn, render_prompt

__all__ = [
    "Packed",
    "answer_ids",
    "chat_text",
    "check_length",
    "count_positions",
    "merge",
    "pack",
    "prompt_ids",
]


class Packed(NamedTuple):
    """A batch of prompts, ready for a backbone."""

    x_BTD: Tensor
    """Input embeddings; rows are padded on the left."""
    mask_BT: Tensor
    """1 for real positions."""
    lengths: tuple[int, ...]
    """Real positions of each row."""
    fixed: int = 0
    """Leading columns that hold no message, and in which every row has begun."""
    ids_BT: Tensor | None = None
    """Token ids, on the CPU, with marks where a message or padding stands."""
    prefix: Prefix | None = None
    """Leading columns that other turns of the agent read too."""

    @property
    def padded(self) -> bool:
        """Whether a row is shorter than T."""
        return min(self.lengths) < self.x_BTD.shape[1]


class _Row(NamedTuple):
    ids: list[int]
    spans: list[tuple[str, int]]
    """Slot and first position of each message."""


def pack(
    backbone: LoadedBackbone,
    agent: AgentSpec,
    samples: Sequence[Mapping[str, Any]],
    messages: Mapping[str, Tensor],
    *,
    room: int = 0,
    tools: Sequence[Mapping[str, Any]] = (),
) -> Packed:
    """Render, tokenise and embed the prompts of a batch.

    Args:
        backbone: of the agent.
        agent: whose prompt.
        samples: B mappings: sample fields, and slots that hold text.
        messages: slot → message_BKD, spliced in at the slot.
        room: positions that must be left after the prompt.
        tools: schemas for the chat template.

    Raises:
        DataError: a prompt fails to render, is empty, or leaves no room in the model's context.
    """
    sizes = {slot: message.shape[1] for slot, message in messages.items()}
    rows = [_row(backbone, agent, sample, sizes, tools) for sample in samples]
    length = max(len(row.ids) for row in rows)
    check_length(backbone, agent, length, room)
    ids_BT = _in_columns(rows)
    mask_BT = (ids_BT != PADDING).long()
    x_BTD, first = backbone.embed(ids_BT.where(ids_BT >= 0, backbone.pad_id)), length
    for slot, message_BKD in messages.items():
        starts = [
            (i, length - len(row.ids) + at)
            for i, row in enumerate(rows)
            for name, at in row.spans
            if name == slot
        ]
        first = min([first, *(at for _, at in starts)])
        x_BTD = _splice(x_BTD, message_BKD, starts)
    begun = max(length - len(row.ids) for row in rows)
    fixed = first if begun < first < length else 0
    lengths = tuple(len(row.ids) for row in rows)
    return Packed(x_BTD, mask_BT.to(backbone.device), lengths, fixed, ids_BT)


def merge(prompts: Sequence[Packed]) -> Packed:
    """One batch of several, padded on the left to the longest."""
    longest = max(prompt.x_BTD.shape[1] for prompt in prompts)
    x, mask, ids = [], [], []
    for prompt in prompts:
        more = longest - prompt.x_BTD.shape[1]
        x.append(F.pad(prompt.x_BTD, (0, 0, more, 0)))
        mask.append(F.pad(prompt.mask_BT, (more, 0)))
        if prompt.ids_BT is not None:
            ids.append(F.pad(prompt.ids_BT, (more, 0), value=PADDING))
    lengths = tuple(length for prompt in prompts for length in prompt.lengths)
    ids_BT = torch.cat(ids) if len(ids) == len(prompts) else None
    return Packed(torch.cat(x), torch.cat(mask), lengths, ids_BT=ids_BT)


def prompt_ids(
    backbone: LoadedBackbone,
    agent: AgentSpec,
    samples: Sequence[Mapping[str, Any]],
    sizes: Mapping[str, int],
    tools: Sequence[Mapping[str, Any]] = (),
) -> Tensor:
    """Ids of a batch of prompts, (B, T), as in `Packed.ids_BT`; nothing is embedded.

    Args:
        backbone: of the agent.
        agent: whose prompt.
        samples: B mappings: sample fields, and slots that hold text.
        sizes: slot → rows of the message in it.
        tools: schemas for the chat template.
    """
    return _in_columns([_row(backbone, agent, sample, sizes, tools) for sample in samples])


def _in_columns(rows: Sequence[_Row]) -> Tensor:
    """Ids padded on the left."""
    length = max(len(row.ids) for row in rows)
    ids_BT = torch.full((len(rows), length), PADDING)
    for i, row in enumerate(rows):
        ids_BT[i, length - len(row.ids) :] = torch.tensor(row.ids)
    return ids_BT


def count_positions(
    backbone: LoadedBackbone,
    agent: AgentSpec,
    sample: Mapping[str, Any],
    sizes: Mapping[str, int],
) -> int:
    """Positions of a prompt.

    Args:
        backbone: of the agent.
        agent: whose prompt.
        sample: sample fields, and slots that hold text.
        sizes: slot → rows of the message in it.
    """
    return len(_row(backbone, agent, sample, sizes, ()).ids)


def _splice(x_BTD: Tensor, message_BKD: Tensor, starts: list[tuple[int, int]]) -> Tensor:
    """Put message rows at (row, first position); differentiable in the message."""
    steps = message_BKD.shape[1]
    if not starts or steps == 0:
        return x_BTD
    rows_N = torch.tensor([i for i, _ in starts], device=x_BTD.device).repeat_interleave(steps)
    first_N = torch.tensor([at for _, at in starts], device=x_BTD.device).repeat_interleave(steps)
    k_N = torch.arange(steps, device=x_BTD.device).repeat(len(starts))
    values_ND = message_BKD.to(x_BTD.device, x_BTD.dtype)[rows_N, k_N]
    return x_BTD.index_put((rows_N, first_N + k_N), values_ND)


def _row(
    backbone: LoadedBackbone,
    agent: AgentSpec,
    sample: Mapping[str, Any],
    sizes: Mapping[str, int],
    tools: Sequence[Mapping[str, Any]],
) -> _Row:
    try:
        rendered = render_prompt(agent, sample, sizes)
    except (TemplateError, ValueError, TypeError, ArithmeticError, LookupError) as error:
        raise DataError(
            f"the prompt of agent {agent.name!r} cannot be rendered: {error}"
        ) from error
    options = agent.chat_options | ({"tools": list(tools)} if tools else {})
    text = chat_text(backbone.tokenizer, rendered.turns, options)
    ids: list[int] = []
    spans: list[tuple[str, int]] = []
    for part in _split(text, rendered):
        if part in rendered.markers:
            slot = rendered.markers[part]
            spans.append((slot, len(ids)))
            ids += [MESSAGE] * sizes[slot]
        elif part:
            ids += backbone.tokenizer(part, add_special_tokens=False).input_ids
    if not ids:
        raise DataError(f"the prompt of agent {agent.name!r} is empty")
    return _Row(ids, spans)


def _split(text: str, rendered: Rendered) -> list[str]:
    if not rendered.markers:
        return [text]
    return re.split("(" + "|".join(map(re.escape, rendered.markers)) + ")", text)


def chat_text(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], options: Mapping[str, Any]
) -> str:
    """The chat template's text, ending where the assistant begins.

    A template that refuses a system turn gets it as the beginning of the user turn; a tokenizer
    without a template gets the plain text.
    """
    if not tokenizer.chat_template:
        return "\n\n".join(turn.content for turn in turns)
    try:
        return _apply(tokenizer, turns, options)
    except TemplateError:
        if len(turns) < 2:
            raise
        merged = Turn("user", "\n\n".join(turn.content for turn in turns))
        return _apply(tokenizer, [merged], options)


def _apply(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], options: Mapping[str, Any]
) -> str:
    messages = [turn._asdict() for turn in turns]
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **options
    )
    return str(text)


def check_length(backbone: LoadedBackbone, agent: AgentSpec, length: int, room: int) -> None:
    """Refuse a prompt that leaves no room in its backbone's positions.

    Raises:
        DataError: naming the agent, its backbone and both lengths.
    """
    most = backbone.planned.info.max_positions
    if most is not None and length + room > most:
        raise DataError(
            f"agent {agent.name!r}: a prompt of {length} positions and {room} more to come exceed "
            f"the {most} positions of backbone {backbone.planned.spec.source!r}; shorten the "
            "sample, or lower latent_steps or max_new_tokens"
        )


def answer_ids(backbone: LoadedBackbone, text: str) -> list[int]:
    """Token ids of an answer, with the end of the turn that the model is to write after it."""
    ids: list[int] = backbone.tokenizer(text, add_special_tokens=False).input_ids
    end = backbone.turn_end_id
    return ids if end is None else [*ids, end]
