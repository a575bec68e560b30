"""What the compiler asks of a link kind, known for built-in kinds without importing torch.

A kind of your own needs no entry here: its class is asked, and its weights are counted on the meta
device. The tests compare the two for every built-in kind.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from latentmas.links._options import (
    ExpandedResidualOptions,
    LinkOptions,
    MLPOptions,
    ResidualOptions,
    SoftTokenOptions,
    resolve_equal_widths,
    resolve_expanded_residual,
    resolve_recursive,
    resolve_residual,
    resolve_soft_token,
)
from latentmas.links._registry import link_kinds

if TYPE_CHECKING:
    from latentmas.links._base import Link

__all__ = ["BUILT_IN", "LinkSketch", "link_sketch", "sketch_class"]

LARGEST = 2**63 - 1
"""Bytes of the largest tensor that torch can describe."""


class LinkSketch(NamedTuple):
    """A kind without its weights."""

    options: type[LinkOptions]
    """Pydantic model of its options."""
    inits: frozenset[str]
    """Values of `init` that it supports."""
    needs: frozenset[str]
    """Parts of its backbones that it needs."""
    resolve: Callable[[str, dict[str, Any], int, int], Any]
    """`Link.resolve` of the kind."""
    measure: Callable[[Any, int, int], tuple[int, bool]]
    """Takes resolved options and widths S and D; returns the exact number of weights, and whether
    the output can be scaled."""


def link_sketch(name: str) -> LinkSketch:
    """The sketch of a link kind.

    Args:
        name: Registered name of the kind.

    Returns:
        The built-in sketch, or one that asks the kind's class.

    Raises:
        UnknownNameError: The kind is unknown; the message suggests the closest name.
    """
    return BUILT_IN.get(name) or sketch_class(link_kinds.get(name))


def sketch_class(kind: type[Link]) -> LinkSketch:
    """A sketch that asks the class of a kind.

    Args:
        kind: Class of the kind.
    """
    return LinkSketch(kind.Options, kind.inits, kind.needs, kind.resolve, partial(_count, kind))


def _count(kind: type[Link], options: Any, in_dim: int, out_dim: int) -> tuple[int, bool]:
    """Build a link on the meta device, which allocates no memory."""
    import torch

    with torch.device("meta"):
        link = kind(options, in_dim, out_dim)
    return sum(p.numel() for p in link.parameters()), link.scale_output(1.0)


def _linear(in_dim: int, out_dim: int) -> int:
    """Weights of a linear layer.

    Raises:
        OverflowError: The layer is larger than torch can describe.
    """
    if 4 * in_dim * out_dim > LARGEST:
        raise OverflowError(f"a layer from {in_dim} to {out_dim} is too large")
    return in_dim * out_dim + out_dim


def _mlp(in_dim: int, out_dim: int, expansion: int) -> int:
    hidden = expansion * out_dim
    return _linear(in_dim, hidden) + _linear(hidden, out_dim)


def _residual(options: ResidualOptions, in_dim: int, out_dim: int) -> int:
    return _linear(in_dim, out_dim) if options.residual == "projection" else 0


def _measure_recursive(
    options: ExpandedResidualOptions, in_dim: int, out_dim: int
) -> tuple[int, bool]:
    norms = 2 * in_dim + 2 * out_dim
    mlp = _mlp(in_dim, out_dim, options.expansion)
    return norms + mlp + _residual(options, in_dim, out_dim), True


def _measure_linear_residual(
    options: ResidualOptions, in_dim: int, out_dim: int
) -> tuple[int, bool]:
    own = _linear(in_dim, out_dim) + _residual(options, in_dim, out_dim)
    return own, options.residual == "projection"


def _measure_mlp_residual(
    options: ExpandedResidualOptions, in_dim: int, out_dim: int
) -> tuple[int, bool]:
    own = _mlp(in_dim, out_dim, options.expansion) + _residual(options, in_dim, out_dim)
    return own, options.residual == "projection"


def _measure_soft_token(options: SoftTokenOptions, in_dim: int, out_dim: int) -> tuple[int, bool]:
    if not options.residual:
        return 0, False
    return 2 * out_dim + _mlp(out_dim, out_dim, options.expansion), False


def _plain(
    model: type[LinkOptions], role: str, options: dict[str, Any], in_dim: int, out_dim: int
) -> LinkOptions:
    return model.model_validate(options)


_ONE, _ALIGNED = frozenset({"default"}), frozenset({"default", "near_identity", "ridge"})
_NONE = frozenset[str]()

BUILT_IN: dict[str, LinkSketch] = {
    "identity": LinkSketch(
        LinkOptions, _ONE, _NONE, resolve_equal_widths, lambda options, s, d: (0, False)
    ),
    "linear": LinkSketch(
        LinkOptions,
        _ALIGNED,
        _NONE,
        partial(_plain, LinkOptions),
        lambda options, s, d: (_linear(s, d), True),
    ),
    "linear_residual": LinkSketch(
        ResidualOptions, _ALIGNED, _NONE, resolve_residual, _measure_linear_residual
    ),
    "mlp": LinkSketch(
        MLPOptions,
        _ONE,
        _NONE,
        partial(_plain, MLPOptions),
        lambda options, s, d: (_mlp(s, d, options.expansion), True),
    ),
    "mlp_residual": LinkSketch(
        ExpandedResidualOptions, _ALIGNED, _NONE, resolve_expanded_residual, _measure_mlp_residual
    ),
    "recursive": LinkSketch(
        ExpandedResidualOptions, _ALIGNED, _NONE, resolve_recursive, _measure_recursive
    ),
    "soft_token": LinkSketch(
        SoftTokenOptions,
        _ONE,
        frozenset({"head", "embeddings", "tokenizer", "states"}),
        resolve_soft_token,
        _measure_soft_token,
    ),
}
"""Built-in kinds by name."""
