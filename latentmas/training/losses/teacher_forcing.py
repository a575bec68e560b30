"""Teacher forcing: a backbone reads a prompt and then a given text.

Shapes: `B` batch, `A` answer positions, `L` all positions, `D` width, `N` answer positions of all
rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from latentmas.backbones import KVCache, LoadedBackbone
from latentmas.engine import Packed, beginning_of, first_messages, positions, state_after

__all__ = ["TeacherForced", "cross_entropy", "padded_ids", "teacher_force"]


class TeacherForced(NamedTuple):
    """States of a backbone that reads a prompt and then its answer."""

    h_ND: Tensor
    """The state before each answer token."""
    ids_N: Tensor
    """That token."""
    after_ND: Tensor
    """The state after each answer token."""


def teacher_force(
    backbone: LoadedBackbone,
    prompt: Packed,
    answers: Sequence[Sequence[int]],
    *,
    scored_only: bool = False,
) -> TeacherForced:
    """Feed each prompt and its answer; what comes before the first message without gradients.

    Args:
        backbone: reads.
        prompt: B prompts, padded on the left.
        answers: B lists of token ids; padded on the right here.
        scored_only: leave out the last token of each answer, after which nothing is scored;
            `after_ND` is then empty.

    Returns:
        States and tokens of all answer positions, rows one after another. Differentiable in the
        prompt.
    """
    ids_BA, real_BA = padded_ids(backbone, answers)
    x_BLD = torch.cat([prompt.x_BTD, backbone.embed(ids_BA).to(prompt.x_BTD.dtype)], dim=1)
    learning = torch.is_grad_enabled() and prompt.ids_BT is not None
    read = _read_rows if learning else _read
    sizes = [len(text) for text in answers]
    h_BLD, ends = read(backbone, prompt, x_BLD, [max(0, size - scored_only) for size in sizes])
    before = [(row, end - 1 + n) for row, end in enumerate(ends) for n in range(sizes[row])]
    places_N2 = torch.tensor(before, dtype=torch.long, device=h_BLD.device).view(-1, 2)
    rows_N, columns_N = places_N2.T
    h_ND = h_BLD[rows_N, columns_N]
    after_ND = h_ND[:0] if scored_only else h_BLD[rows_N, columns_N + 1]
    return TeacherForced(h_ND, ids_BA[real_BA], after_ND)


def _read(
    backbone: LoadedBackbone, prompt: Packed, x_BLD: Tensor, fed: Sequence[int]
) -> tuple[Tensor, list[int]]:
    """States of all columns, prompts padded on the left and answers on the right.

    Args:
        backbone: reads.
        prompt: B prompts.
        x_BLD: their embeddings, and those of answers after them.
        fed: tokens of each answer that are read.

    Returns:
        States, and the column of each row's first answer token.
    """
    length = prompt.x_BTD.shape[1]
    width = length + max(fed)
    after_BA = torch.arange(max(fed)) < torch.tensor(fed)[:, None]
    mask_BL = torch.cat([prompt.mask_BT, after_BA.long().to(prompt.mask_BT.device)], dim=1)
    h_BLD = backbone.step(x_BLD[:, :width], positions(mask_BL, "mask"), mask_BL)
    return h_BLD, [length] * len(fed)


def _read_rows(
    backbone: LoadedBackbone, prompt: Packed, x_BLD: Tensor, fed: Sequence[int]
) -> tuple[Tensor, list[int]]:
    """As `_read`, with rows that begin in one column: what no link precedes takes no gradients.

    A backbone that learns takes gradients everywhere.

    Prompt and answer of a row stand together and padding follows them, so that all rows have a
    beginning in common, where there is one, and fewer columns in all. States are those of the
    columns that gradients flow through.
    """
    lengths, length, device = prompt.lengths, prompt.x_BTD.shape[1], x_BLD.device
    widths = torch.tensor([own + more for own, more in zip(lengths, fed, strict=True)])
    columns_L = torch.arange(int(widths.max()))
    starts_B1 = torch.tensor([[length - own] for own in lengths])
    places_BL = (starts_B1 + columns_L).clamp_max(x_BLD.shape[1] - 1).to(device)
    x_BLD = x_BLD.gather(1, places_BL[..., None].expand(-1, -1, x_BLD.shape[-1]))
    mask_BL = (columns_L < widths[:, None]).long().to(device)
    places_BL = positions(mask_BL, "mask")
    ids = beginning_of(backbone, prompt)
    cut = 0 if backbone.learns else first_messages(prompt)
    begun = len(ids)
    state = state_after(backbone, ids, len(lengths)) if begun else KVCache(backbone)
    if cut > begun:
        own = slice(begun, cut)
        with torch.no_grad():
            backbone.step(x_BLD[:, own].detach(), places_BL[:, own], mask_BL[:, :cut], state)
    h_BLD = backbone.step(x_BLD[:, cut:], places_BL[:, cut:], mask_BL, state)
    return h_BLD, [own - cut for own in lengths]


def padded_ids(backbone: LoadedBackbone, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids padded on the right, and which of them are real, both (B, A) on the device.

    Args:
        backbone: whose padding token and device are taken.
        texts: B lists of token ids, the longest of A tokens.
    """
    ids_BA = torch.full((len(texts), max(map(len, texts))), backbone.pad_id)
    real_BA = torch.zeros_like(ids_BA, dtype=torch.bool)
    for row, text in enumerate(texts):
        ids_BA[row, : len(text)] = torch.tensor(text, dtype=torch.long)
        real_BA[row, : len(text)] = True
    return ids_BA.to(backbone.device), real_BA.to(backbone.device)


def cross_entropy(logits_NV: Tensor, ids_N: Tensor) -> Tensor:
    """Sum over tokens; half-precision logits are summed in fp32."""
    half = logits_NV.dtype in (torch.bfloat16, torch.float16)
    return F.cross_entropy(logits_NV.float() if half else logits_NV, ids_N, reduction="sum")
