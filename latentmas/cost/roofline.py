"""The roofline: what a call of a model computes, moves and holds, from counts alone.

A call feeds `new` positions of each row after `past` ones. Operations are those of matrix products,
two for each weight and position, and four for each pair of positions that attend and each unit of
attention width; attention is counted as causal. Bytes are weights read once a call, keys and values
of the past read and of the new written, and recurrent states read and written. What stays in caches
of the chip is not counted, so seconds are a floor.

Shapes: `D` width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from latentmas.cost.hardware import SIZES, Hardware
from latentmas.plan import BackboneCosts, BackboneInfo

__all__ = ["FLOAT32", "Model", "Work", "pairs", "total"]

FLOAT32 = SIZES["float32"]
# Numbers that transformers' layers hold at once for a position, measured: in the MLP three of its
# width and three of D; in attention two of its width and three of D, and two of its width for each
# position attended to (keys and values repeated over query heads); in a gated delta rule without
# its own kernels about 7.5 of its inputs' width, in float32, for whole chunks of positions.
RECURRENT_COPIES = 7.5
RECURRENT_CHUNK = 64


@dataclass(frozen=True)
class Work:
    """What is computed and moved."""

    flops: float = 0.0
    weight_bytes: float = 0.0
    state_bytes: float = 0.0
    """Keys, values and recurrent states, read and written."""

    def __add__(self, other: Work) -> Work:
        return Work(
            self.flops + other.flops,
            self.weight_bytes + other.weight_bytes,
            self.state_bytes + other.state_bytes,
        )

    def seconds(self, hardware: Hardware, dtype: str, layers: int) -> float:
        """Of one call: the longest of computing, moving and launching."""
        moved = (self.weight_bytes + self.state_bytes) / hardware.bandwidth
        return max(self.flops / hardware.peak(dtype), moved, layers * hardware.launch)


def total(works: Iterable[Work]) -> Work:
    """All of them together."""
    return sum(works, Work())


def pairs(new: int, past: int, window: int | None = None) -> int:
    """Pairs of a new position and one that it attends to, itself included."""
    if window is None:
        return new * past + new * (new + 1) // 2
    growing = min(new, max(0, window - past))
    return growing * past + growing * (growing + 1) // 2 + (new - growing) * window


@dataclass(frozen=True)
class Model:
    """A backbone in one type of weights; the laws of its costs."""

    info: BackboneInfo
    costs: BackboneCosts
    dtype: str

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return SIZES[self.dtype]

    @property
    def weights(self) -> int:
        """Bytes of all that is loaded."""
        return self.costs.loaded_parameters * self.size

    def call(self, rows: int, new: int, past: int = 0, *, cached: bool = True) -> Work:
        """The decoder over `new` positions of each row.

        Args:
            rows: B.
            new: positions fed.
            past: positions that the state holds.
            cached: False: no state is kept; the past counts for nothing.
        """
        costs = self.costs
        attended = costs.attention_width * pairs(new, past)
        if costs.sliding_window is not None:
            attended += costs.sliding_attention_width * pairs(new, past, costs.sliding_window)
        # A recurrent state decays, is read twice and gets a product added: six for each number.
        recurrent = 6 * costs.recurrent_elements * new
        flops = rows * (2 * costs.body_parameters * new + 4 * attended + recurrent)
        state = self._traffic(rows, new, past) if cached else 0
        return Work(float(flops), float(costs.body_parameters * self.size), float(state))

    def head(self, rows: int) -> Work:
        """The vocabulary head at one position of each row."""
        count = self.costs.head_parameters
        return Work(2.0 * rows * count, float(count * self.size))

    def _traffic(self, rows: int, new: int, past: int) -> int:
        costs = self.costs
        number = costs.kv_elements * (past + new)
        if costs.sliding_window is not None:
            number += costs.sliding_kv_elements * (min(past, costs.sliding_window - 1) + new)
        again = 2 if past else 1
        recurrent = costs.recurrent_elements * FLOAT32 + costs.conv_elements * self.size
        return rows * (number * self.size + again * recurrent)

    def kept(self, rows: int, new: int, past: int = 0) -> int:
        """Bytes of the state after a call.

        A sliding layer keeps what the call has fed, even beyond its window, until the next call.
        """
        costs = self.costs
        number = costs.kv_elements * (past + new) + costs.conv_elements
        if costs.sliding_window is not None:
            number += costs.sliding_kv_elements * (min(past, costs.sliding_window - 1) + new)
        return rows * (number * self.size + costs.recurrent_elements * FLOAT32)

    def whole(self, rows: int, columns: int) -> int:
        """Bytes of a state with keys and values of all columns, windows or not."""
        costs = self.costs
        number = (costs.kv_elements + costs.sliding_kv_elements) * columns + costs.conv_elements
        return rows * (number * self.size + costs.recurrent_elements * FLOAT32)

    def working(self, rows: int, new: int, past: int = 0) -> int:
        """Bytes that a call holds beside its input and its state, at the worst layer."""
        costs, width = self.costs, self.info.hidden_size
        length = past + new
        full = costs.attention_width // max(1, costs.layers.get("full", 0))
        sliding = costs.sliding_attention_width // max(1, costs.layers.get("sliding", 0))
        heads = max(full, sliding)
        mask = rows * new * length
        chunked = RECURRENT_CHUNK * ceil(new / RECURRENT_CHUNK) if new > 1 else 1
        inside = [
            self.size * new * 3 * (costs.widest + width),
            self.size * (new * (2 * heads + 3 * width + length) + 2 * length * heads),
            int(chunked * RECURRENT_COPIES * costs.recurrent_width * FLOAT32)
            + 3 * new * width * self.size,
        ]
        return mask + rows * max(inside)
