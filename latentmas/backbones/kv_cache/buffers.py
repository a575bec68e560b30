"""Storage of fixed size and addresses, of which states are views.

All views share their storage: a state of fewer rows or columns is the beginning of a larger one, so
that a captured step of any size reads and writes the same memory.

Shapes: `B` rows, `C` columns, `D` width, `N` tensors of one shape, `S` numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from latentmas.backbones.kv_cache.state import KVCache, is_recurrent

if TYPE_CHECKING:
    from latentmas.backbones._loaded import LoadedBackbone
    from latentmas.backbones.kv_cache.static import StaticKVCache

__all__ = ["Cursor", "StaticBuffers"]

AT_ONCE = 2**28
"""Maximum number of bytes that are copied at once when rows move."""
CHOICE_NUMBERS = 5
"""Numbers that the choice of a row's next token may read."""
SHAPES = "shapes of a state"
"""Key of the shapes in a backbone's workspace."""


class Cursor:
    """Index of the next position to write: a count on the host and a buffer on the device."""

    def __init__(self, device: torch.device) -> None:
        self.length = 0
        self.column = torch.zeros(1, dtype=torch.long, device=device)


class _Field(NamedTuple):
    """One tensor of a layer, for one row."""

    name: str
    """`keys` or `values`, or `conv_states` or `recurrent_states` with a number."""
    number: int
    shape: tuple[int, ...]
    """Heads and width of keys and values; all of a recurrent state."""
    dtype: torch.dtype

    @property
    def grows(self) -> bool:
        """Whether it has columns."""
        return self.name in ("keys", "values")

    def nbytes(self, columns: int) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * (columns if self.grows else 1) * self.dtype.itemsize


@torch.no_grad()
def _fields(backbone: LoadedBackbone) -> list[list[_Field]]:
    """What each layer stores, found with one position of one row."""
    if SHAPES not in backbone.workspace:
        state, x_11D = KVCache(backbone), backbone.embed(torch.zeros(1, 1, dtype=torch.long))
        ones = torch.ones(1, 1, dtype=torch.long, device=x_11D.device)
        backbone.run_modules(x_11D, ones - 1, ones, state)
        backbone.workspace[SHAPES] = [_fields_of(layer) for layer in state.cache.layers]
    found: list[list[_Field]] = backbone.workspace[SHAPES]
    return found


def _fields_of(layer: Any) -> list[_Field]:
    if not is_recurrent(layer):
        tensors = [("keys", 0, layer.keys), ("values", 0, layer.values)]
        return [_Field(n, i, (t.shape[1], t.shape[3]), t.dtype) for n, i, t in tensors]
    held = [("conv_states", layer.conv_states), ("recurrent_states", layer.recurrent_states)]
    return [
        _Field(name, i, tuple(tensor.shape[1:]), tensor.dtype)
        for name, tensors in held
        for i, tensor in tensors.items()
        if tensor is not None
    ]


class StaticBuffers:
    """Storage for B rows of C columns; each state of it has some of the first rows and columns.

    It refers to its states, and they do not refer to it, nor either to the backbone: in a reference
    cycle, memory would outlive its last use until the garbage collector runs.
    """

    def __init__(self, backbone: LoadedBackbone, rows: int, capacity: int) -> None:
        """Allocate everything.

        Args:
            backbone: Backbone whose states are stored.
            rows: Number of rows B.
            capacity: Number of columns C.
        """
        self.rows, self.capacity = rows, capacity
        self.nbytes = self.size(backbone, rows, capacity)
        """Bytes of keys, values and recurrent states."""
        device, width = backbone.device, backbone.planned.info.hidden_size
        self.cursor = Cursor(device)
        self.position_B = torch.zeros(rows, dtype=torch.long, device=device)
        self.mask_BC = torch.zeros(rows, capacity, dtype=torch.long, device=device)
        self.x_B1D = torch.zeros(rows, 1, width, dtype=backbone.dtype, device=device)
        self.h_BD = torch.zeros(rows, width, dtype=backbone.dtype, device=device)
        self.token_B = torch.zeros(rows, dtype=torch.long, device=device)
        self.choice_BS = torch.zeros(rows, CHOICE_NUMBERS, dtype=torch.float64, device=device)
        self.layers: list[dict[tuple[str, int], Tensor]] = []
        """Tensors of each layer, by name and number."""
        self._blocks: list[Tensor] = []
        """Keys and values, (N, B, heads, C, width), those of one shape together."""
        self._recurrent: list[Tensor] = []
        self._allocate(_fields(backbone), device)
        self.kept = False
        """Whether they stay after their turn, so that their steps are worth a capture."""
        self.replays: dict[Any, Any] = {}
        """Steps over these buffers, managed by the executor."""
        self._states: dict[tuple[int, int], StaticKVCache] = {}
        self._written = 0, 0
        """Rows and columns that may hold something other than zeros."""

    @staticmethod
    def size(backbone: LoadedBackbone, rows: int, capacity: int) -> int:
        """Bytes of keys, values and recurrent states of such buffers."""
        return rows * sum(f.nbytes(capacity) for fields in _fields(backbone) for f in fields)

    def _allocate(self, fields: list[list[_Field]], device: torch.device) -> None:
        counts: dict[tuple[Any, ...], int] = {}
        for field in (f for own in fields for f in own if f.grows):
            key = field.shape, field.dtype
            counts[key] = counts.get(key, 0) + 1
        blocks = {
            key: torch.zeros(count, self.rows, key[0][0], self.capacity, key[0][1], dtype=key[1],
                             device=device)
            for key, count in counts.items()
        }  # fmt: skip
        self._blocks = list(blocks.values())
        free = {key: iter(block) for key, block in blocks.items()}
        for own in fields:
            self.layers.append({})
            for field in own:
                if field.grows:
                    tensor = next(free[field.shape, field.dtype])
                else:
                    tensor = torch.zeros(self.rows, *field.shape, dtype=field.dtype, device=device)
                    self._recurrent.append(tensor)
                self.layers[-1][field.name, field.number] = tensor

    def state(self, rows: int, columns: int) -> StaticKVCache:
        """The state of the first rows and columns, made once.

        Args:
            rows: Number of rows, at most B.
            columns: Number of columns, at most C.
        """
        from latentmas.backbones.kv_cache.static import StaticKVCache

        key = rows, columns
        if key not in self._states:
            self._states[key] = StaticKVCache.of(self, rows, columns)
        self._written = max(self._written[0], rows), max(self._written[1], columns)
        self._states[key].refresh()
        return self._states[key]

    def reset(self) -> None:
        """Forget all positions, and set what was written to zero: masked values must be finite."""
        rows, columns = self._written
        self.cursor.length = 0
        for block in self._blocks:
            block[:, :rows, :, :columns].zero_()
        for tensor in (*self._recurrent, self.mask_BC, self.x_B1D, self.h_BD, self.token_B):
            tensor[:rows].zero_()
        self._written = 0, 0

    def copy_rows(
        self,
        source: StaticBuffers,
        rows: Sequence[int],
        *,
        at: int = 0,
        length: int,
        shift: int = 0,
    ) -> None:
        """Copy rows of other buffers of the same backbone, or move those of these.

        Args:
            source: Where the rows are; it may be `self`.
            rows: The rows; they may repeat.
            at: Where the first of them goes.
            length: Number of columns to copy.
            shift: Number of columns by which they move to the right. Where it is negative, columns
                are lost on the left, which must have been masked.
        """
        places = range(at, at + len(rows))
        own = source is self
        moves = [(r, p) for r, p in zip(rows, places, strict=True) if not own or shift or r != p]
        if not moves or length + shift <= 0:
            return
        origin_N, place_N = torch.tensor(moves, device=self.mask_BC.device).T.contiguous()
        begin = max(0, -shift)
        self._written = (
            max(self._written[0], at + len(rows)),
            max(self._written[1], length + shift),
        )
        for block, other in zip(self._blocks, source._blocks, strict=True):
            count = max(1, AT_ONCE // (len(moves) * length * block[0, 0, :, 0].nbytes or 1))
            for to, of in zip(block.split(count), other.split(count), strict=True):
                values = of[:, :, :, begin:length].index_select(1, origin_N)
                if not own or shift > 0:  # what was here before need not be finite
                    to[:, :, :, : self._written[1]].index_fill_(1, place_N, 0)
                to[:, :, :, begin + shift : length + shift].index_copy_(1, place_N, values)
        for tensor, other in zip(self._recurrent, source._recurrent, strict=True):
            tensor.index_copy_(0, place_N, other.index_select(0, origin_N))
