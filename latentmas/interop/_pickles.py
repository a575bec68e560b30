"""Read published link weights, `.pt` files of bare state dicts, without running any code."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from latentmas.errors import WeightsError
from latentmas.links import Link
from latentmas.safe_data import StoredTensor, scan_archive

__all__ = ["read_link"]

_NAMES = {
    "pre_ln": "norm_in",
    "ln_source": "norm_in",
    "post_ln": "norm_out",
    "ln_target": "norm_out",
    "residual_proj": "residual.proj",
}
"""Published module name → ours; other names are the same."""
_FLOATS = ("DoubleStorage", "FloatStorage", "HalfStorage", "BFloat16Storage")
_SLACK = 2**20
"""Maximum size of a file beyond its weights, in bytes."""


def read_link(path: Path, like: Link) -> dict[str, Tensor]:
    """Read a published link.

    Args:
        path: a `.pt` file written by torch.save. Its opcodes are checked before it is unpickled
            with `weights_only=True`, so no code in it runs.
        like: a link with the expected names and shapes.

    Returns:
        A state dict for `like`, in fp32.

    Raises:
        WeightsError: LM502 when the file cannot be read safely, LM503 when names, shapes, layout
            or values do not fit the link.
    """
    expected = {name: tensor.shape for name, tensor in like.state_dict().items()}
    n_weights = sum(shape.numel() for shape in expected.values())
    archive = scan_archive(path, 8 * n_weights + _SLACK)
    _compare(path, _named(path, archive.content), expected)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns about old formats
            loaded = torch.load(archive.repacked(), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of many types for damaged files
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise WeightsError(f"LM502 {path} cannot be read safely: {reason}") from error
    found = _named(path, loaded)
    return {name: _tensor(path, name, found[name], shape) for name, shape in expected.items()}


def _named(path: Path, content: object) -> dict[str, object]:
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"LM503 {path} holds a {type(content).__name__}, not a mapping of tensors"
        )
    return {_renamed(str(name)): value for name, value in content.items()}


def _compare(path: Path, found: Mapping[str, object], expected: Mapping[str, torch.Size]) -> None:
    """Check names, types and shapes before anything is unpickled."""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has unexpected {', '.join(extra):.200}"] if extra else []
        raise WeightsError(f"LM503 {path} {' and '.join(parts)}")
    for name, shape in expected.items():
        own, where = found[name], f"LM503 {path}: {name}"
        if not isinstance(own, StoredTensor):
            raise WeightsError(f"{where} is a {type(own).__name__}, not a tensor")
        if own.shape != tuple(shape):
            raise WeightsError(f"{where} has shape {own.shape}, expected {tuple(shape)}")
        if own.storage not in _FLOATS:
            raise WeightsError(f"{where} is of type {own.storage}, but must be floating-point")


def _renamed(name: str) -> str:
    module, dot, rest = name.partition(".")
    return _NAMES.get(module, module) + dot + rest


def _tensor(path: Path, name: str, value: object, shape: torch.Size) -> Tensor:
    where = f"LM503 {path}: {name}"
    dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
    if not isinstance(value, Tensor) or not dense or value.shape != shape:
        raise WeightsError(f"{where} is not the dense tensor that the file declared")
    weights = value.to(torch.float32, copy=True).contiguous()
    if not weights.isfinite().all():
        raise WeightsError(f"{where} holds values that are not finite")
    return weights
