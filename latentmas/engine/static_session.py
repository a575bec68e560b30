"""A feed over buffers of fixed size, whose single steps can be replayed from a CUDA graph.

Shapes: `B` rows, `T` new positions, `L` columns so far, `C` capacity, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import torch
from torch import Tensor
from torch.nn import functional as F

from latentmas.backbones import LoadedBackbone, RowSelection, StaticKVCache
from latentmas.engine.buffers import KEPT_SHARE, bucket, enlarged, shape_for, surplus
from latentmas.engine.cuda_graphs import Replay, replay_of
from latentmas.engine.inner import Inner
from latentmas.engine.packing import Packed
from latentmas.engine.sessions import DecoderSession
from latentmas.plan import PositionMode

__all__ = ["StaticSession"]

LOCK = Lock()
"""Runs may go side by side in threads."""


class StaticSession(DecoderSession):
    """Prompts are read step by step as ever; what follows them costs the host one replay each.

    Never differentiable: its buffers are written in place.
    """

    def __init__(
        self, backbone: LoadedBackbone, mode: PositionMode, *, captures: bool, compile_step: bool
    ) -> None:
        super().__init__(backbone, mode)
        self._captures, self._compile = captures, compile_step
        self._more = 0
        self._begins: list[int] = []
        """Columns of padding on each row's left, as far as the host knows."""
        self._held: StaticKVCache | None = None
        self._ahead: int | None = None
        """Single steps that the buffers know of and `mask_BL` does not; None: they are behind."""

    @property
    def _state(self) -> StaticKVCache:
        assert self._held is not None, "nothing was fed yet"
        return self._held

    @property
    def _rows(self) -> int:
        assert self.mask_BL is not None
        return self.mask_BL.shape[0]

    def reserve(self, count: int) -> None:
        """Make room for this many positions after the prompt; there may be more."""
        self._more = count

    def prefill(self, prompt: Packed) -> Tensor:
        """Append a prompt; a prefix that was read before is taken from its snapshot."""
        rows, length = prompt.x_BTD.shape[:2]
        self._held = _lease(self.backbone, rows, length + self._more)
        self._begins = [length - own for own in prompt.lengths]
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
        self._begins = [self._begins[row] for row in wanted]
        length = old.length - self._drop_padding()
        self._move(wanted, length, length + old.capacity - old.length)

    def join(self, other: DecoderSession) -> None:
        """Move both feeds' rows to common buffers."""
        assert isinstance(other, StaticSession)
        self._settle()
        other._settle()
        parts = [RowSelection(feed._state, range(feed._rows)) for feed in (self, other)]
        more, others_more = self._join_columns(other)
        self._begins = [n + more for n in self._begins] + [n + others_more for n in other._begins]
        length = max(part.state.length for part in parts) - self._drop_padding()
        held = _lease(self.backbone, self._rows, length + other._more)
        held.gather(parts, length)
        _release(self.backbone, self._state)
        other.close()
        self._held = held

    def should_compact(self, kept: int, rows: int) -> bool:
        """Whether the rest fits smaller buffers; with graphs, whether it fits half of them.

        A captured step costs about as much for fewer rows, and a new shape costs a capture.
        """
        size, held = bucket(kept), bucket(rows)
        return 2 * size <= held if self._captures else size < held

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

    def _drop_padding(self) -> int:
        """Forget the columns on the left that are padding in every row; returns how many.

        Rows that leave leave their columns behind: without this, a batch that others keep joining
        would need ever larger buffers.
        """
        assert self.mask_BL is not None
        cut = min(self._begins)
        self.mask_BL = self.mask_BL[:, cut:]
        self._begins = [begin - cut for begin in self._begins]
        return cut

    def _fitting(self, new: int) -> StaticKVCache:
        """The state; it is moved where `new` positions would not fit."""
        old = self._state
        if old.length + new > old.capacity:
            self._move(range(self._rows), old.length, enlarged(old.length, new))
        return self._state

    def _move(self, rows: Sequence[int], length: int, columns: int) -> None:
        """Go on with some rows and the last L columns, in buffers of as many as are asked for."""
        old = self._state
        self._held = _lease(self.backbone, len(rows), columns)
        self._held.gather([RowSelection(old, rows)], length)
        _release(self.backbone, old)

    def _filled(self, value: Tensor) -> Tensor:
        """Repeat the last row until all rows of the buffers are there."""
        missing = self._state.rows - value.shape[0]
        if not missing:
            return value
        return torch.cat([value, value[-1:].expand(missing, *value.shape[1:])])


def _lease(backbone: LoadedBackbone, rows: int, columns: int) -> StaticKVCache:
    """A state of enough rows and columns, kept from an earlier turn or new."""
    shape = shape_for(rows, columns)
    with LOCK:
        free: list[StaticKVCache] = backbone.workspace.setdefault("free", [])
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
    return StaticKVCache(backbone, *shape)


def _release(backbone: LoadedBackbone, state: StaticKVCache) -> None:
    """Keep a state, with its graphs, for a later turn; the oldest ones go."""
    spare = _spare(backbone.device)
    with LOCK:
        free: list[StaticKVCache] = backbone.workspace.setdefault("free", [])
        free.append(state)
        del free[: surplus([state.nbytes for state in free], spare)]


def _spare(device: torch.device) -> int:
    """Bytes that kept states may take when there are many; only graphs are worth them."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(device).total_memory // KEPT_SHARE)
