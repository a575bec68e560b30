"""Shared options of kinds with a residual branch."""

from __future__ import annotations

from typing import Any, Literal

from latentmas.links._base import LinkOptions

__all__ = ["ResidualOptions", "resolve_residual"]


class ResidualOptions(LinkOptions):
    """`residual`: add x itself (`"identity"`) or a projection of it (`"projection"`)."""

    residual: Literal["identity", "projection"] = "projection"


def resolve_residual(
    role: str, options: dict[str, Any], in_dim: int, out_dim: int
) -> dict[str, Any]:
    """Fill in the branch: identity for inner links, projection for outer ones.

    Raises:
        ValueError: an identity branch between unequal widths.
    """
    resolved = {"residual": "identity" if role == "inner" else "projection"} | options
    if resolved["residual"] == "identity" and in_dim != out_dim:
        raise ValueError(f"an identity residual cannot bridge widths {in_dim} and {out_dim}")
    return resolved
