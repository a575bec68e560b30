"""Rows of several agents in one state, each agent's with its own inner link.

Shapes: `B` rows, `D` width, `N` rows of several agents, padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from latentmas.engine.buffers import row_bucket
from latentmas.engine.inner import GroupedInner, Inner
from latentmas.links import Link

__all__ = ["Spread"]


class Spread:
    """Which rows of a state belong to which of several agents, on the device.

    Each agent's inner link runs over as many rows as the largest group has, rounded up, so that few
    graphs serve all batches.
    """

    def __init__(self, inner: GroupedInner, rows: int, device: torch.device) -> None:
        """Rows of as many groups as there are links.

        Args:
            inner: Links, with the number of rows of each.
            rows: Number of rows of the state B.
            device: Device of the state.
        """
        self._each = row_bucket(max(inner.sizes))
        count = len(inner.links) * self._each
        self._origin_N = torch.zeros(count, dtype=torch.long, device=device)
        self._place_B = torch.zeros(rows, dtype=torch.long, device=device)

    def arrange(self, sizes: Sequence[int]) -> None:
        """Say how many rows each agent has."""
        origins, places, start = list[int](), list[int](), 0
        for group, size in enumerate(sizes):
            origins += [start + min(row, size - 1) for row in range(self._each)]
            places += range(group * self._each, group * self._each + size)
            start += size
        places += [0] * (len(self._place_B) - start)
        self._origin_N.copy_(torch.tensor(origins))
        self._place_B.copy_(torch.tensor(places))

    def over(self, inner: Inner | None) -> Inner:
        """The links over these rows."""
        assert isinstance(inner, GroupedInner)
        return _SpreadInner(inner.links, self._each, self._origin_N, self._place_B)


class _SpreadInner(NamedTuple):
    """The inner links of several agents, each over its own rows of a state."""

    links: list[Link]
    each: int
    origin_N: Tensor
    place_B: Tensor

    def apply_to(self, h_BD: Tensor) -> Tensor:
        """Each link on its rows, `(B, D)` to `(B, D)`."""
        parts = h_BD.index_select(0, self.origin_N).split(self.each)
        mapped = [link.apply_to(part) for link, part in zip(self.links, parts, strict=True)]
        return torch.cat(mapped).index_select(0, self.place_B)
