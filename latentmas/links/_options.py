"""Options of the built-in kinds, and how their defaults are filled in; imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ExpandedResidualOptions",
    "LinkOptions",
    "MLPOptions",
    "ResidualOptions",
    "SoftTokenOptions",
    "resolve_equal_widths",
    "resolve_expanded_residual",
    "resolve_recursive",
    "resolve_residual",
    "resolve_soft_token",
]


class LinkOptions(BaseModel):
    """Options of a kind; subclasses add fields with defaults. Unknown options are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MLPOptions(LinkOptions):
    """Options of kinds with a hidden layer."""

    expansion: int = Field(default=1, ge=1, le=64)
    """Ratio of the hidden width to the output width."""


class ResidualOptions(LinkOptions):
    """`residual`: add x itself (`"identity"`) or a projection of it (`"projection"`)."""

    residual: Literal["identity", "projection"] = "projection"


class ExpandedResidualOptions(ResidualOptions):
    """Options of kinds with a hidden layer and a residual branch."""

    expansion: int = Field(default=1, ge=1, le=64)
    """Ratio of the hidden width to the output width."""


class SoftTokenOptions(LinkOptions):
    """Options of `soft_token`."""

    temperature: float = Field(default=0.5, gt=0.0, le=100.0)
    """Temperature of the softmax; low values approach the most likely token's embedding."""
    top_k: int | None = Field(default=None, ge=1)
    """Number of most likely tokens to mix. None: all."""
    residual: bool | None = None
    """Add a trainable correction that starts at exactly zero. None: on edges, not inside agents."""
    expansion: int = Field(default=2, ge=1, le=64)
    """Ratio of the correction's hidden width to its output width."""


def resolve_equal_widths(
    role: str, options: dict[str, Any], in_dim: int, out_dim: int
) -> LinkOptions:
    """No options; equal widths.

    Raises:
        ValueError: The widths differ.
    """
    if in_dim != out_dim:
        raise ValueError(f"identity cannot bridge widths {in_dim} and {out_dim}")
    return LinkOptions.model_validate(options)


def resolve_residual(
    role: str, options: dict[str, Any], in_dim: int, out_dim: int
) -> ResidualOptions:
    """Default residual: identity for inner links, projection for outer ones."""
    return ResidualOptions.model_validate(_with_residual(role, options, in_dim, out_dim))


def resolve_expanded_residual(
    role: str, options: dict[str, Any], in_dim: int, out_dim: int
) -> ExpandedResidualOptions:
    """Default residual: identity for inner links, projection for outer ones."""
    return ExpandedResidualOptions.model_validate(_with_residual(role, options, in_dim, out_dim))


def resolve_recursive(
    role: str, options: dict[str, Any], in_dim: int, out_dim: int
) -> ExpandedResidualOptions:
    """Defaults: expansion 1 for inner links, 2 for outer ones."""
    resolved = _with_residual(role, options, in_dim, out_dim)
    expansion = 1 if role == "inner" else 2
    return ExpandedResidualOptions.model_validate({"expansion": expansion} | resolved)


def resolve_soft_token(
    role: str, options: dict[str, Any], in_dim: int, out_dim: int
) -> SoftTokenOptions:
    """Fill in `residual`: a correction on edges, none inside agents."""
    given = {name: value for name, value in options.items() if value is not None}
    return SoftTokenOptions.model_validate({"residual": role == "outer"} | given)


def _with_residual(role: str, options: dict[str, Any], in_dim: int, out_dim: int) -> dict[str, Any]:
    """Fill in the branch: identity for inner links, projection for outer ones.

    Raises:
        ValueError: an identity branch between unequal widths.
    """
    resolved = {"residual": "identity" if role == "inner" else "projection"} | options
    if resolved["residual"] == "identity" and in_dim != out_dim:
        raise ValueError(f"an identity residual cannot bridge widths {in_dim} and {out_dim}")
    return resolved
