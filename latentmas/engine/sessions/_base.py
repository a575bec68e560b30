"""Feeding a backbone piece by piece, with what it has seen kept.

Shapes: `B` batch, `T` new positions, `L` columns so far, `D` width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from latentmas.backbones import KVCache, LoadedBackbone
from latentmas.engine.choosers import MOST_LIKELY, Chooser
from latentmas.engine.inner import Inner
from latentmas.engine.packing import Packed
from latentmas.errors import UnknownNameError
from latentmas.plan import PositionMode

__all__ = [
    "DecoderSession",
    "check_position_mode",
    "positions",
]


def check_position_mode(mode: str) -> PositionMode:
    """The mode itself.

    Raises:
        UnknownNameError: the mode is unknown.
    """
    modes: tuple[PositionMode, ...] = get_args(PositionMode)
    for known in modes:
        if mode == known:
            return known
    raise UnknownNameError("position_mode", mode, modes)


COMPACT_SHARE = 0.75
"""Rows are dropped when no more than this share of them goes on."""


def positions(mask_BL: Tensor, mode: PositionMode) -> Tensor:
    """Position ids of every column."""
    if mode == "column":
        return torch.arange(mask_BL.shape[1], device=mask_BL.device).expand_as(mask_BL)
    return (mask_BL.cumsum(dim=1) - 1).clamp_min(0)


class DecoderSession(ABC):
    """Feeds input embeddings to a backbone piece by piece and hands out the last state."""

    takes_in = False
    """Whether other feeds are to join it, so that it outlives turns; set before the prompt."""
    splits = False
    """Whether a prompt may be fed in two parts: what a feed remembers costs it nothing."""

    def __init__(self, backbone: LoadedBackbone, mode: PositionMode) -> None:
        self.backbone, self.mode = backbone, mode
        self.mask_BL: Tensor | None = None
        """1 for real positions of what was fed; None before anything was."""
        self.next_B: Tensor | None = None
        """Position of each row's next column."""
        self.padded = True
        """Whether a row may hold padding."""

    @abstractmethod
    def feed(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Append positions; returns the state at the last of them, h_BD.

        Args:
            x_BTD: input embeddings.
            mask_BT: 1 for real positions; None: all are.
        """

    @abstractmethod
    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, with all that they have been fed; a row may come repeatedly."""

    @abstractmethod
    def join(self, other: DecoderSession) -> None:
        """Take in another feed's rows, after one's own; the other one is spent."""

    def can_merge(self) -> bool:
        """Whether `join` is possible."""
        return True

    def should_compact(self, kept: int, rows: int) -> bool:
        """Whether it pays to go on with `kept` of the rows alone."""
        return kept <= COMPACT_SHARE * rows

    def reserve(self, count: int) -> None:  # noqa: B027
        """Learn how many positions are to come after the prompt, at most or so."""

    def close(self) -> None:  # noqa: B027
        """Give back what is held; nothing is fed after it."""

    def prefill(self, prompt: Packed) -> Tensor:
        """Append a prompt; the state at its last position, h_BD.

        Its fixed columns are read without gradients: nothing that could learn stands in them,
        unless the backbone itself learns.
        """
        self.padded = prompt.padded
        apart = torch.is_grad_enabled() and self.splits and not self.backbone.learns
        cut = prompt.fixed if apart else 0
        if cut:
            with torch.no_grad():
                self.feed(prompt.x_BTD[:, :cut].detach(), prompt.mask_BT[:, :cut])
        return self.feed(prompt.x_BTD[:, cut:], prompt.mask_BT[:, cut:])

    def step(self, x_BD: Tensor) -> Tensor:
        """Append one position to every row; returns its state, h_BD."""
        return self.feed(x_BD[:, None])

    @property
    def runs_ahead(self) -> bool:
        """Whether `write_ahead` costs the host less than a choice of its own."""
        return False

    def write_ahead(
        self, ids_B: Tensor, chooser: Chooser = MOST_LIKELY, choice_BS: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Append a token to every row, and choose the next ones.

        The host waits for nothing.

        Args:
            ids_B: Token ids, on the device.
            chooser: How the next ones are chosen.
            choice_BS: Numbers of each row that it reads, on the host: pinned memory for CUDA.

        Returns:
            The state of these tokens, h_BD, and the ids of the next ones, (B,).
        """
        h_BD = self.feed(self.backbone.embed(ids_B)[:, None])
        return h_BD, self.choose(h_BD, chooser, choice_BS)

    def choose(self, h_BD: Tensor, chooser: Chooser, choice_BS: Tensor | None) -> Tensor:
        """Choose the token of every row that follows a state, (B,); the host waits for nothing.

        Args:
            h_BD: The state.
            chooser: How tokens are chosen.
            choice_BS: Numbers of each row that it reads, as in `write_ahead`.
        """
        if choice_BS is not None:
            choice_BS = choice_BS.to(h_BD.device, non_blocking=True)
        return chooser.choose(self.backbone.logits(h_BD), choice_BS)

    def roll(self, inner: Inner, h_BD: Tensor, count: int) -> list[Tensor]:
        """Latent steps after a state: each feeds what the inner link makes of the last one."""
        states = [h_BD]
        for _ in range(count):
            states.append(self.step(inner.apply_to(states[-1])))
        return states[1:]

    def _feed_after_prefix(self, prompt: Packed, state: KVCache) -> Tensor:
        """Append a prompt, with its prefix from a snapshot, or leaving one; both without gradients.

        Args:
            prompt: with or without a prefix.
            state: what this feed remembers in.
        """
        prefix = prompt.prefix
        if prefix is None or torch.is_grad_enabled() or not prefix.begins(prompt.ids_BT):
            return DecoderSession.prefill(self, prompt)
        self.padded, cut = prompt.padded, prefix.columns
        if prefix.snapshot is None:
            self.feed(prompt.x_BTD[:, :cut], prompt.mask_BT[:, :cut])
            prefix.snapshot = state.snapshot()
        else:
            state.restore(prefix.snapshot)
            self._extend(prompt.x_BTD[:, :cut], prompt.mask_BT[:, :cut])
        return self.feed(prompt.x_BTD[:, cut:], prompt.mask_BT[:, cut:])

    def _extend(self, x_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Take columns in; returns their positions, (B, T)."""
        rows, new = x_BTD.shape[:2]
        if self.next_B is None:
            self.next_B = torch.zeros(rows, dtype=torch.long, device=x_BTD.device)
        if mask_BT is None or self.mode == "column":
            places_BT = self.next_B[:, None] + torch.arange(new, device=x_BTD.device)
            self.next_B = self.next_B + new
        else:
            places_BT = (self.next_B[:, None] + mask_BT.cumsum(dim=1) - 1).clamp_min(0)
            self.next_B = self.next_B + mask_BT.sum(dim=1)
        if mask_BT is None:
            mask_BT = torch.ones(rows, new, dtype=torch.long, device=x_BTD.device)
        parts = [mask_BT] if self.mask_BL is None else [self.mask_BL, mask_BT]
        self.mask_BL = torch.cat(parts, dim=1)
        return places_BT

    def _select_columns(self, rows: Sequence[int]) -> Tensor:
        """Choose rows of what is known of the columns; returns their numbers on the device."""
        assert self.mask_BL is not None, "nothing was fed yet"
        assert self.next_B is not None
        index = torch.tensor(rows, device=self.mask_BL.device)
        self.mask_BL, self.next_B = self.mask_BL[index], self.next_B[index]
        return index

    def _join_columns(self, other: DecoderSession) -> tuple[int, int]:
        """Columns of both end together; returns how many each got on its left."""
        assert self.mask_BL is not None, "nothing was fed yet"
        assert other.mask_BL is not None
        assert self.next_B is not None
        assert other.next_B is not None
        own, others = self.mask_BL.shape[1], other.mask_BL.shape[1]
        more, others_more = max(0, others - own), max(0, own - others)
        self.padded = self.padded or other.padded or own != others
        self.mask_BL = torch.cat(
            [F.pad(self.mask_BL, (more, 0)), F.pad(other.mask_BL, (others_more, 0))]
        )
        self.next_B = torch.cat([self.next_B, other.next_B])
        return more, others_more
