"""What a rollout asks of inner links."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from latentmas.links import Link

__all__ = ["GroupedInner", "Inner", "learns", "links_of"]


class Inner(Protocol):
    """An inner link, or those of several agents."""

    def apply_to(self, h_BD: Tensor) -> Tensor:
        """States to input embeddings, row by row."""
        ...


class GroupedInner:
    """The inner links of several agents, each over its own rows."""

    def __init__(self, links: Sequence[Link], sizes: Sequence[int]) -> None:
        self.links, self.sizes = list(links), list(sizes)

    def apply_to(self, h_BD: Tensor) -> Tensor:
        """Each link on its rows, `(B, …, D)` to `(B, …, D)`."""
        parts = h_BD.split(self.sizes)
        mapped = [link.apply_to(part) for link, part in zip(self.links, parts, strict=True)]
        return torch.cat(mapped)


def links_of(inner: Inner | None) -> Sequence[Inner]:
    """The inner links of all agents; none where there is no inner link."""
    if isinstance(inner, GroupedInner):
        return inner.links
    return [] if inner is None else [inner]


def learns(inner: Inner) -> bool:
    """Whether a weight of an inner link is trained."""
    links = links_of(inner)
    modules = [link for link in links if isinstance(link, nn.Module)]
    return len(modules) < len(links) or any(
        weight.requires_grad for module in modules for weight in module.parameters()
    )
