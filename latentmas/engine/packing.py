"""From rendered prompts to left-padded batches of input embeddings, with messages spliced in.

Shapes: `B` batch, `T` positions of the longest prompt, `K` latent steps, `D` width,
`N` spliced rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from latentmas.backbones import LoadedBackbone, outside_ids, segment_ids
from latentmas.engine.assembly import Slot, assemble
from latentmas.engine.reuse.prefix import MESSAGE, PADDING, Prefix
from latentmas.errors import DataError
from latentmas.prompts import Segment
from latentmas.spec import AgentSpec

__all__ = [
    "Packed",
    "answer_ids",
    "check_length",
    "count_positions",
    "merge",
    "pack",
    "prompt_ids",
]


HEAD = 256
"""Fewer characters of a template's head are not looked at."""


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
    head: int = 0
    """Leading tokens of every row that the template alone has written, where they are many."""

    @property
    def padded(self) -> bool:
        """Whether a row is shorter than T."""
        return min(self.lengths) < self.x_BTD.shape[1]


class _Row(NamedTuple):
    ids: list[int]
    spans: list[tuple[str, int]]
    """Slot and first position of each message."""
    head: str = ""
    """What the template alone has written, from the first character on."""


def pack(
    backbone: LoadedBackbone,
    agent: AgentSpec,
    samples: Sequence[Mapping[str, Any]],
    messages: Mapping[str, Tensor],
    *,
    room: int = 0,
    tools: Sequence[Mapping[str, Any]] = (),
    shortened: Collection[str] = (),
) -> Packed:
    """Render, tokenise and embed the prompts of a batch.

    Args:
        backbone: Backbone of the agent.
        agent: Agent that reads the prompt.
        samples: B mappings: sample fields, and slots that hold text.
        messages: slot → message_BKD, spliced in at the slot.
        room: positions that must be left after the prompt.
        tools: schemas for the chat template.
        shortened: slots whose messages leave out their rows of zeros, in each row of the batch.

    Raises:
        DataError: a prompt fails to render, is empty, or leaves no room in the model's context;
            or the chat template loses, changes or repeats a value.
    """
    kept = {slot: _kept_rows(x, slot in shortened) for slot, x in messages.items()}
    rows = [
        _row(backbone, agent, sample, {slot: len(own[i]) for slot, own in kept.items()}, tools)
        for i, sample in enumerate(samples)
    ]
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
        x_BTD = _splice(x_BTD, message_BKD, starts, kept[slot])
    begun = max(length - len(row.ids) for row in rows)
    fixed = first if begun < first < length else 0
    lengths = tuple(len(row.ids) for row in rows)
    head = _head_tokens(backbone, rows)
    return Packed(x_BTD, mask_BT.to(backbone.device), lengths, fixed, ids_BT, head=head)


def _head_tokens(backbone: LoadedBackbone, rows: Sequence[_Row]) -> int:
    """Leading tokens that the template alone has written, by a text that all rows begin with.

    The last of them may merge with what follows, and is left out.
    """
    text = rows[0].head
    if len(text) < HEAD or any(row.head != text for row in rows[1:]):
        return 0
    ids = segment_ids(backbone.tokenizer, [Segment(text, own=True)])
    ids = _begun(backbone, _Row(ids, [])).ids[:-1]
    return len(ids) if all(row.ids[: len(ids)] == ids for row in rows) else 0


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
        backbone: Backbone of the agent.
        agent: Agent that reads the prompt.
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
        backbone: Backbone of the agent.
        agent: Agent that reads the prompt.
        sample: sample fields, and slots that hold text.
        sizes: slot → rows of the message in it.
    """
    return len(_row(backbone, agent, sample, sizes, ()).ids)


def _kept_rows(message_BKD: Tensor, shortened: bool) -> list[list[int]]:
    """Message rows that the receiver reads, for each row of the batch."""
    rows, steps = message_BKD.shape[:2]
    if not shortened:
        return [list(range(steps))] * rows
    shown_BK = (message_BKD.detach() != 0).any(dim=-1).tolist()
    return [[k for k, shown in enumerate(own) if shown] for own in shown_BK]


def _splice(
    x_BTD: Tensor,
    message_BKD: Tensor,
    starts: Sequence[tuple[int, int]],
    kept: Sequence[Sequence[int]],
) -> Tensor:
    """Put the kept message rows at (row, first position); differentiable in the message."""
    places = [(i, at + n, k) for i, at in starts for n, k in enumerate(kept[i])]
    if not places:
        return x_BTD
    rows_N, columns_N, k_N = torch.tensor(places, device=x_BTD.device).T
    values_ND = message_BKD.to(x_BTD.device, x_BTD.dtype)[rows_N, k_N]
    return x_BTD.index_put((rows_N, columns_N), values_ND)


def _row(
    backbone: LoadedBackbone,
    agent: AgentSpec,
    sample: Mapping[str, Any],
    sizes: Mapping[str, int],
    tools: Sequence[Mapping[str, Any]],
) -> _Row:
    ids: list[int] = []
    spans: list[tuple[str, int]] = []
    pieces = assemble(backbone, agent, sample, list(sizes), tools)
    first = pieces[0] if pieces else None
    head = first.text if isinstance(first, Segment) and first.own else ""
    for is_slot, group in groupby(pieces, lambda piece: isinstance(piece, Slot)):
        if not is_slot:
            ids += segment_ids(backbone.tokenizer, [p for p in group if isinstance(p, Segment)])
            continue
        for slot in group:
            name = slot[0]
            spans.append((name, len(ids)))
            ids += [MESSAGE] * sizes[name]
    if not ids:
        raise DataError(f"the prompt of agent {agent.name!r} is empty")
    return _begun(backbone, _Row(ids, spans, head))


def _begun(backbone: LoadedBackbone, row: _Row) -> _Row:
    """The row with the tokens that begin a text, where no chat template writes them."""
    begin = [] if backbone.tokenizer.chat_template else backbone.begin_ids
    if row.ids[: len(begin)] == begin:
        return row
    spans = [(slot, at + len(begin)) for slot, at in row.spans]
    return _Row([*begin, *row.ids], spans, row.head)


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
    """Token ids of an answer, with the end of the turn that the model is to write after it.

    The answer is text from outside: nothing in it is a special token.
    """
    ids = outside_ids(backbone.tokenizer, text)
    end = backbone.turn_end_id
    return ids if end is None else [*ids, end]
