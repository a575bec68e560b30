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

from latentmas.backbones import LoadedBackbone, State
from latentmas.runtime.feeds import positions
from latentmas.runtime.packing import Packed

__all__ = ["Taught", "cross_entropy", "padded_ids", "teach"]


class Taught(NamedTuple):
    """States of a backbone that reads a prompt and then its answer."""

    h_ND: Tensor
    """The state before each answer token."""
    ids_N: Tensor
    """That token."""
    after_ND: Tensor
    """The state after each answer token."""


def teach(backbone: LoadedBackbone, prompt: Packed, answers: Sequence[Sequence[int]]) -> Taught:
    """Feed each prompt and its answer; the prompt's fixed columns without gradients.

    Args:
        backbone: reads.
        prompt: B prompts, padded on the left.
        answers: B lists of token ids; padded on the right here.

    Returns:
        States and tokens of all answer positions, rows one after another. Differentiable in the
        prompt.
    """
    ids_BA, real_BA = padded_ids(backbone, answers)
    longest = ids_BA.shape[1]
    x_BLD = torch.cat([prompt.x_BTD, backbone.embed(ids_BA).to(prompt.x_BTD.dtype)], dim=1)
    mask_BL = torch.cat([prompt.mask_BT, real_BA.long()], dim=1)
    h_BLD = _read(backbone, x_BLD, mask_BL, prompt.fixed)
    before_BAD, after_BAD = h_BLD[:, -longest - 1 : -1], h_BLD[:, -longest:]
    return Taught(before_BAD[real_BA], ids_BA[real_BA], after_BAD[real_BA])


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


def _read(backbone: LoadedBackbone, x_BLD: Tensor, mask_BL: Tensor, fixed: int) -> Tensor:
    """States of the columns after the fixed ones."""
    places = positions(mask_BL, "mask")
    if not fixed or not torch.is_grad_enabled():
        return backbone.step(x_BLD, places, mask_BL)
    state = State(backbone)
    with torch.no_grad():
        backbone.step(x_BLD[:, :fixed].detach(), places[:, :fixed], mask_BL[:, :fixed], state)
    return backbone.step(x_BLD[:, fixed:], places[:, fixed:], mask_BL, state)


def cross_entropy(logits_NV: Tensor, ids_N: Tensor) -> Tensor:
    """Sum over tokens; half-precision logits are summed in fp32."""
    half = logits_NV.dtype in (torch.bfloat16, torch.float16)
    return F.cross_entropy(logits_NV.float() if half else logits_NV, ids_N, reduction="sum")
