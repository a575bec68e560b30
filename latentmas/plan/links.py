"""The link table of a plan."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from latentmas.spec import Frozen

__all__ = ["LinkPlan"]


class LinkPlan(Frozen):
    """One set of link weights."""

    id: str
    """`inner.<agent>`, `outer.<source>-><target>.<slot>` or `shared.<name>`; key of its weights."""
    role: Literal["inner", "outer"]
    kind: str
    options: dict[str, Any] = Field(default_factory=dict)
    """Every option of the kind, resolved."""
    init: Literal["default", "near_identity", "ridge"]
    norm: Literal["embedding", "none"]
    in_dim: int = Field(ge=1, le=2**20)
    """Width S of the source's states."""
    out_dim: int = Field(ge=1, le=2**20)
    """Width D of the receiver's states."""
    n_parameters: int = Field(ge=0, lt=2**53)
    """Exact number of weights."""
    source: str
    """Key of the backbone whose states are the input."""
    target: str
    """Key of the backbone whose embedding space is the output space."""
    users: tuple[str, ...]
    """Agents (inner) or edges (outer) that use these weights."""
    differentiable: bool
    """Whether there is a differentiable path from the link to the final decode."""
    needs: tuple[str, ...] = Field(default=(), exclude_if=lambda needs: not needs)
    """Parts that the kind needs: `head`, `embeddings` and `tokenizer` of its backbones;
    `states` means that an outer link maps h instead of inner(h)."""
