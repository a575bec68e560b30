"""A feed over buffers of fixed size, whose single steps can be replayed from a CUDA graph.

Shapes: `B` rows, `T` new positions, `L` columns so far, `C` capacity, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import torch
from torch import Tensor
from torch.nn import functional as F

from latentmas.backbones import LoadedBackbone, StaticState
from latentmas.backbones._state import Part
from latentmas.runtime.feeds import Feed, PositionMode
from latentmas.runtime.inner import Inner
from latentmas.runtime.packing import Packed
from latentmas.runtime.replay import Replay, replay_of

__all__ = ["FixedFeed", "bucket"]

SMALLEST = 64
"""Columns of the smallest state."""
LOCK = Lock()
"""Runs may go side by side in threads."""
KEPT = 6
"""States of a backbone that are kept for later turns."""


def bucket(count: int) -> int:
    """The least power of two, or three quarters of one, that is not below `count`.

    Sizes are rounded up to these, so that few shapes of buffers and graphs serve all batches.
    """
    power = 1 << max(0, count - 1).bit_length()
    three = power * 3 // 4
    return three if power >= 4 and three >= count else power


class FixedFeed(Feed):
    """Prompts are read step by step as ever; what follows them costs the host one replay each.

    Never differentiable: its buffers are written in place.
    """

    def __init__(
        self, backbone: LoadedBackbone, mode: PositionMode, *, captures: bool, compile_step: bool
    ) -> None:
        super().__init__(backbone, mode)
        self._captures, self._compile = captures, compile_step
        self._more = 0
        self._held: StaticState | None = None
        self._ahead: int | None = None
        """Single steps that the buffers know of and `mask_BL` does not; None: they are behind."""

    @property
    def _state(self) -> StaticState:
        assert self._held is not None, "nothing was fed yet"
        return self._held

    @property
    def _rows(self) -> int:
        assert self.mask_BL is not None
        return self.mask_BL.shape[0]

    def reserve(self, count: int) -> None:
        """Make room for this many positions after the prompt; there may be more."""
        self._more = count

    def feed_prompt(self, prompt: Packed) -> Tensor:
        """Append a prompt; a prefix that was read before is taken from its snapshot."""
        rows, length = prompt.x_BTD.shape[:2]
        self._held = _lease(self.backbone, rows, length + self._more)
        return self._feed_after_prefix(prompt, self._held)

    def feed(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Append positions: one by a replay, several as they come."""
        rows, new = x_BTD.shape[:2]
        if new == 1 and mask_BT is None:
            self._ready(1)
            self._state.x_B1D[:rows].copy_(x_BTD)
            self._replay(None)(self.backbone, self._state)
            self._step()
            return self._state.h_BD[:rows].clone()
        self._settle()
        state = self._fitting(new)
        places = self._extend(x_BTD, mask_BT)
        assert self.mask_BL is not None
        if new == 1:
            state.place(self._filled(self.mask_BL), self._filled(places[:, 0]))
            mask_BL = state.mask_BC
        else:
            mask_BL = self._filled(self.mask_BL)
        x_BTD, places = self._filled(x_BTD), self._filled(places)
        h_BTD = self.backbone.step(x_BTD, places, mask_BL, state, padded=self.padded)
        state.advance(new)
        return h_BTD[:rows, -1]

    def roll(self, inner: Inner, h_BD: Tensor, count: int) -> list[Tensor]:
        """Latent steps with the inner link inside the replayed step; the host only counts."""
        if count == 0:
            return []
        self._ready(count)
        rows, state, states = h_BD.shape[0], self._state, list[Tensor]()
        state.h_BD.copy_(self._filled(h_BD))
        replay = self._replay(inner)
        for _ in range(count):
            replay(self.backbone, state)
            self._step()
            states.append(state.h_BD[:rows].clone())
        return states

    def select(self, rows: Sequence[int]) -> None:
        """Move rows to buffers of their number."""
        self._settle()
        old, wanted = self._state, list(rows)
        self._select_columns(wanted)
        self._held = _lease(self.backbone, len(wanted), old.capacity)
        self._held.gather([Part(old, wanted)], old.length)
        _release(self.backbone, old)

    def join(self, other: Feed) -> None:
        """Move both feeds' rows to common buffers."""
        assert isinstance(other, FixedFeed)
        self._settle()
        other._settle()
        parts = [Part(feed._state, range(feed._rows)) for feed in (self, other)]
        length = max(part.state.length for part in parts)
        held = _lease(self.backbone, self._rows + other._rows, length + other._more)
        held.gather(parts, length)
        self._join_columns(other)
        _release(self.backbone, self._state)
        other.close()
        self._held = held

    def sheds(self, kept: int, rows: int) -> bool:
        """Whether the rest fits smaller buffers."""
        return bucket(kept) < bucket(rows)

    def close(self) -> None:
        """Leave the buffers to later turns."""
        if self._held is not None:
            _release(self.backbone, self._held)
        self._held = None

    def _replay(self, inner: Inner | None) -> Replay:
        return replay_of(
            self._state, inner, self._rows, captures=self._captures, compile_step=self._compile
        )

    def _step(self) -> None:
        """Count a single step."""
        assert self._ahead is not None
        self._ahead += 1
        self._state.advance(1)

    def _ready(self, count: int) -> None:
        """Bring the buffers up to date, with room for single steps."""
        if self._state.length + count > self._state.capacity:
            self._settle()
            self._fitting(count)
        if self._ahead is None:
            assert self.mask_BL is not None
            assert self.next_B is not None
            self._state.place(self._filled(self.mask_BL), self._filled(self.next_B))
            self._ahead = 0

    def _settle(self) -> None:
        """Bring mask and positions up to what single steps have done."""
        if self._ahead:
            assert self.mask_BL is not None
            assert self.next_B is not None
            self.mask_BL = F.pad(self.mask_BL, (0, self._ahead), value=1)
            self.next_B = self.next_B + self._ahead
        self._ahead = None

    def _fitting(self, new: int) -> StaticState:
        """The state, moved to larger buffers where `new` positions would not fit."""
        old = self._state
        if old.length + new > old.capacity:
            self._held = _lease(self.backbone, self._rows, old.length + max(new, old.length // 2))
            self._held.gather([Part(old, range(self._rows))], old.length)
            _release(self.backbone, old)
        return self._state

    def _filled(self, value: Tensor) -> Tensor:
        """Repeat the last row until all rows of the buffers are there."""
        missing = self._state.rows - value.shape[0]
        if not missing:
            return value
        return torch.cat([value, value[-1:].expand(missing, *value.shape[1:])])


def _lease(backbone: LoadedBackbone, rows: int, columns: int) -> StaticState:
    """A state of enough rows and columns, kept from an earlier turn or new."""
    shape = bucket(rows), max(SMALLEST, bucket(columns))
    with LOCK:
        free: list[StaticState] = backbone.workspace.setdefault("free", [])
        fitting = [i for i, state in enumerate(free) if (state.rows, state.capacity) == shape]
        if fitting:
            state = free.pop(fitting[-1])
            state.reset()
            return state
    if backbone.device.type == "cuda":
        left, whole = torch.cuda.mem_get_info(backbone.device)
        if left < whole // 10:
            free.clear()
            torch.cuda.empty_cache()
    return StaticState(backbone, *shape)


def _release(backbone: LoadedBackbone, state: StaticState) -> None:
    """Keep a state, with its graphs, for a later turn; the oldest ones go."""
    with LOCK:
        free: list[StaticState] = backbone.workspace.setdefault("free", [])
        free.append(state)
        del free[:-KEPT]
