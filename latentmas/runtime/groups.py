"""Agents that roll at the same time on one backbone, as one batch.

Shapes: `B` rows of all agents, `T` prompt positions of the longest, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentmas.links import Link
from latentmas.runtime.packing import Packed

__all__ = ["GroupedInner", "merge"]


class GroupedInner:
    """The inner links of several agents, each over its own rows."""

    def __init__(self, links: Sequence[Link], sizes: Sequence[int]) -> None:
        self.links, self.sizes = list(links), list(sizes)

    def apply_to(self, h_BD: Tensor) -> Tensor:
        """Each link on its rows, `(B, …, D)` to `(B, …, D)`."""
        parts = h_BD.split(self.sizes)
        mapped = [link.apply_to(part) for link, part in zip(self.links, parts, strict=True)]
        return torch.cat(mapped)


def merge(prompts: Sequence[Packed]) -> Packed:
    """One batch of several, padded on the left to the longest."""
    longest = max(prompt.x_BTD.shape[1] for prompt in prompts)
    x, mask = [], []
    for prompt in prompts:
        more = longest - prompt.x_BTD.shape[1]
        x.append(torch.nn.functional.pad(prompt.x_BTD, (0, 0, more, 0)))
        mask.append(torch.nn.functional.pad(prompt.mask_BT, (more, 0)))
    return Packed(torch.cat(x), torch.cat(mask))
