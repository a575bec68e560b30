"""A feed that takes what prompts begin with from where it is kept, or leaves it there.

Shapes: `B` batch, `T` prompt positions, `D` width.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from latentmas.backbones import FULL, KVCache, LoadedBackbone
from latentmas.engine.packing import Packed
from latentmas.engine.reuse.beginnings import beginning_first, beginning_of
from latentmas.engine.reuse.prefix import MESSAGE
from latentmas.engine.sessions._base import DecoderSession
from latentmas.plan import PositionMode

__all__ = ["PromptSession"]


class PromptSession(DecoderSession):
    """Reads prompts in parts: their common beginning, the prefix of later turns, and the rest."""

    splits = True

    def __init__(self, backbone: LoadedBackbone, mode: PositionMode) -> None:
        super().__init__(backbone, mode)
        self._more = 0

    def reserve(self, count: int) -> None:
        """Make room for this many positions after the prompt; there may be more."""
        self._more = count

    @property
    @abstractmethod
    def _memory(self) -> KVCache:
        """The state of what was fed."""

    @abstractmethod
    def _start(self, prompt: Packed) -> KVCache:
        """Make room for a prompt; returns the state that it is fed to."""

    @abstractmethod
    def _start_after(self, prompt: Packed, ids: tuple[int, ...]) -> None:
        """Make room for a prompt whose first tokens are in the state already."""

    def prefill(self, prompt: Packed) -> Tensor:
        """Append a prompt; what was read before is taken from where it is kept."""
        prefix = prompt.prefix
        if prefix is not None and prefix.snapshot is not None and not torch.is_grad_enabled():
            if prefix.beginning and prefix.begins(prompt.ids_BT):
                prompt = beginning_first(prompt, prefix.beginning)
        elif ids := beginning_of(self.backbone, prompt) if self._takes_pieces() else ():
            return self._feed_after_beginning(prompt, ids)
        return self._feed_after_prefix(prompt, self._start(prompt))

    def _takes_pieces(self) -> bool:
        """Whether padding may stand between two parts of a prompt."""
        full = set(self.backbone.layer_kinds()) == {FULL} and self.backbone.masks is not None
        return full and self.splits and self.mode == "mask"

    def _feed_after_beginning(self, prompt: Packed, ids: tuple[int, ...]) -> Tensor:
        """Append a prompt whose first tokens are the same in all rows, and have been read before.

        They take the first columns; padding follows them, and then the rest of each row. Columns
        before the first message are read without gradients.
        """
        length, count = prompt.x_BTD.shape[1], len(ids)
        self._start_after(prompt, ids)
        self.padded, prompt = prompt.padded, beginning_first(prompt, count)
        self._extend(prompt.x_BTD[:, :count], prompt.mask_BT[:, :count])
        if torch.is_grad_enabled():
            cut = max(count, _first_message(prompt))
            with torch.no_grad():
                self._feed_columns(prompt, count, cut, detached=True)
        else:
            cut = self._leave_prefix(prompt, count)
        return self._feed_columns(prompt, cut, length)

    def _leave_prefix(self, prompt: Packed, count: int) -> int:
        """Read the columns that later turns begin with, and put them by; the first column after."""
        prefix, length = prompt.prefix, prompt.x_BTD.shape[1]
        if prefix is None or prefix.columns < length - min(prompt.lengths) + count:
            return count  # a beginning is not all in them
        self._feed_columns(prompt, count, prefix.columns)
        prefix.snapshot, prefix.beginning = self._memory.snapshot(), count
        return prefix.columns

    def _feed_columns(self, prompt: Packed, start: int, end: int, *, detached: bool = False) -> Any:
        """Feed some columns of a prompt, if there are any."""
        if start == end:
            return None
        x_BTD = prompt.x_BTD[:, start:end]
        return self.feed(x_BTD.detach() if detached else x_BTD, prompt.mask_BT[:, start:end])


def _first_message(prompt: Packed) -> int:
    """The first column that holds a message; 0 where none does."""
    assert prompt.ids_BT is not None
    return int((prompt.ids_BT == MESSAGE).any(dim=0).long().argmax())
