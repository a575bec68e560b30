"""The roofline: operations, bytes moved and memory of a model call, computed from counts.

A call feeds `new` positions of each row after `past` ones. Operations are those of matrix products:
two per weight and position, and four per attending pair of positions and unit of attention width,
with causal attention. Bytes are the weights, read once per call, the keys and values of the past
(read) and of the new positions (written), and recurrent states, read and written. Other traffic is
not counted, since it may stay in on-chip caches, so seconds are a lower bound.

Shapes: `D` width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from latentmas.cost.hardware import SIZES, Hardware
from latentmas.plan import BackboneCosts, BackboneInfo

__all__ = ["FLOAT32", "Model", "Work", "pairs", "total", "weights_of"]

FLOAT32 = SIZES["float32"]
# Elements that transformers' layers hold at once per position, measured: in the MLP three of its
# width and three of D; in attention two of its width and three of D, and two of its width for each
# position attended to (keys and values repeated over query heads); in a gated delta rule without
# its own kernels about 7.5 of its inputs' width, in float32, for whole chunks of positions.
RECURRENT_COPIES = 7.5
RECURRENT_CHUNK = 64


@dataclass(frozen=True)
class Work:
    """Operations and bytes moved."""

    flops: float = 0.0
    weight_bytes: float = 0.0
    state_bytes: float = 0.0
    """Bytes of keys, values and recurrent states, read and written."""

    def __add__(self, other: Work) -> Work:
        return Work(
            self.flops + other.flops,
            self.weight_bytes + other.weight_bytes,
            self.state_bytes + other.state_bytes,
        )

    def seconds(self, hardware: Hardware, dtype: str, layers: int) -> float:
        """Time of one call: the maximum of computing, moving and launching."""
        moved = (self.weight_bytes + self.state_bytes) / hardware.bandwidth
        return max(self.flops / hardware.peak(dtype), moved, layers * hardware.launch)


def total(works: Iterable[Work]) -> Work:
    """Sum of costs."""
    return sum(works, Work())


def pairs(new: int, past: int, window: int | None = None) -> int:
    """Number of pairs of a new position and a position it attends to, including itself."""
    if window is None:
        return new * past + new * (new + 1) // 2
    growing = min(new, max(0, window - past))
    return growing * past + growing * (growing + 1) // 2 + (new - growing) * window


@dataclass(frozen=True)
class Model:
    """Cost formulas of a backbone with weights of one type."""

    info: BackboneInfo
    costs: BackboneCosts
    dtype: str
    base: str = ""
    """Digest of the backbone without its adapter; models of one base share its weights."""

    @property
    def size(self) -> int:
        """Bytes per element."""
        return SIZES[self.dtype]

    @property
    def weights(self) -> int:
        """Bytes of all loaded weights, without those of an adapter."""
        return round(self.costs.loaded_bytes(self.size))

    @property
    def adapter(self) -> int:
        """Number of an adapter's weights; 0 without one, or if it is unknown."""
        return (self.info.adapter.n_parameters or 0) if self.info.adapter else 0

    @property
    def adapter_bytes(self) -> int:
        """Bytes of an adapter's weights, which are held in float32 over half-precision models."""
        return self.adapter * max(self.size, FLOAT32)

    def call(self, rows: int, new: int, past: int = 0, *, cached: bool = True) -> Work:
        """Cost of the decoder over `new` positions of each row.

        Args:
            rows: Number of rows B.
            new: Number of new positions.
            past: Number of positions in the state.
            cached: Whether a state is kept; if False, the past is ignored.
        """
        costs = self.costs
        attended = costs.attention_width * pairs(new, past)
        if costs.sliding_window is not None:
            attended += costs.sliding_attention_width * pairs(new, past, costs.sliding_window)
        # A recurrent state decays, is read twice and has a product added: six operations each.
        recurrent = 6 * costs.recurrent_elements * new
        weights = costs.body_parameters + self.adapter
        flops = rows * (2 * weights * new + 4 * attended + recurrent)
        state = self._traffic(rows, new, past) if cached else 0
        read = costs.body_bytes(self.size) + self.adapter_bytes
        return Work(float(flops), float(read), float(state))

    def head(self, rows: int) -> Work:
        """Cost of the vocabulary head at one position of each row."""
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

        A sliding layer keeps all positions of the call, even beyond its window, until the next.
        """
        costs = self.costs
        number = costs.kv_elements * (past + new) + costs.conv_elements
        if costs.sliding_window is not None:
            number += costs.sliding_kv_elements * (min(past, costs.sliding_window - 1) + new)
        return rows * (number * self.size + costs.recurrent_elements * FLOAT32)

    def whole(self, rows: int, columns: int) -> int:
        """Bytes of a state with the keys and values of all columns, ignoring windows."""
        costs = self.costs
        number = (costs.kv_elements + costs.sliding_kv_elements) * columns + costs.conv_elements
        return rows * (number * self.size + costs.recurrent_elements * FLOAT32)

    def working(self, rows: int, new: int, past: int = 0) -> int:
        """Peak bytes of a call in addition to its input and state, at the largest layer."""
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


def weights_of(models: Iterable[Model]) -> int:
    """Bytes of the weights of several backbones: each base once, and all adapters."""
    models = list(models)
    bases = {(model.base or id(model), model.dtype): model.weights for model in models}
    return sum(bases.values()) + sum(model.adapter_bytes for model in models)
