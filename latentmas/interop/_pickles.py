"""Published link weights, `.pt` files of bare state dicts, read without running any code."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from latentmas.errors import WeightsError
from latentmas.links import Link

__all__ = ["read_link"]

_NAMES = {
    "pre_ln": "norm_in",
    "ln_source": "norm_in",
    "post_ln": "norm_out",
    "ln_target": "norm_out",
    "residual_proj": "residual.proj",
}
"""Published module name → ours; others are alike."""
_SLACK = 2**20
"""Bytes that a file may have beyond its weights."""


def read_link(path: Path, like: Link) -> dict[str, Tensor]:
    """Read a published link.

    Args:
        path: a `.pt` file; unpickled with `weights_only=True`, so that it runs nothing.
        like: a link with the expected names and shapes.

    Returns:
        A state dict for `like`, in fp32.

    Raises:
        WeightsError: LM502 when the file cannot be read safely, LM503 when names, shapes, layout
            or values are not what the link needs.
    """
    expected = {name: tensor.shape for name, tensor in like.state_dict().items()}
    _check_size(path, sum(shape.numel() for shape in expected.values()))
    try:
        with warnings.catch_warnings(action="ignore"):  # torch remarks on old formats
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise WeightsError(f"LM502 {path} cannot be read safely: {reason}") from error
    except (AttributeError, ImportError, IndexError, KeyError, TypeError) as error:
        raise WeightsError(f"LM502 {path} is no file of tensors: {error!r}") from error
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"LM503 {path} holds a {type(loaded).__name__}, no mapping of tensors")
    return _checked(path, {_renamed(str(name)): value for name, value in loaded.items()}, expected)


def _check_size(path: Path, n_weights: int) -> None:
    """Refuse a file that would take far more memory than the link, before it is unpacked."""
    most = 8 * n_weights + _SLACK
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                size = max(size, sum(entry.file_size for entry in archive.infolist()))
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise WeightsError(f"LM502 {path} is a damaged archive: {error}") from error
    if size > most:
        raise WeightsError(
            f"LM503 {path} unpacks to {size:,} bytes, but the link it is for has "
            f"{n_weights:,} weights"
        )


def _renamed(name: str) -> str:
    module, dot, rest = name.partition(".")
    return _NAMES.get(module, module) + dot + rest


def _checked(
    path: Path, found: Mapping[str, object], expected: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has unexpected {', '.join(extra)}"] if extra else []
        raise WeightsError(f"LM503 {path} {' and '.join(parts)}")
    return {name: _tensor(path, name, found[name], shape) for name, shape in expected.items()}


def _tensor(path: Path, name: str, value: object, shape: torch.Size) -> Tensor:
    where = f"LM503 {path}: {name}"
    if not isinstance(value, Tensor):
        raise WeightsError(f"{where} is a {type(value).__name__}, no tensor")
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        kind = "meta" if value.is_meta else "quantized" if value.is_quantized else value.layout
        raise WeightsError(f"{where} is a {kind} tensor; a dense one is needed")
    if value.shape != shape:
        raise WeightsError(f"{where} has shape {tuple(value.shape)}, expected {tuple(shape)}")
    if not value.is_floating_point():
        raise WeightsError(f"{where} is of type {value.dtype}; floating point is needed")
    weights = value.to(torch.float32, copy=True).contiguous()
    if not weights.isfinite().all():
        raise WeightsError(f"{where} holds values that are not finite")
    return weights
