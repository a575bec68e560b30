"""GGUF files as backbones: unpacked once into a cache folder that loads like any other model."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from latentmas.cache import cache_folder
from latentmas.errors import WeightsError
from latentmas.redact import get_logger

__all__ = ["gguf_config", "is_gguf", "unpacked"]

log = get_logger("latentmas.backbones")
DTYPES = {"auto": "bfloat16", "float64": "float32"}
"""Declared type → type of the unpacked weights, where the two differ."""
DONE = "unpacked"
"""Marker file, written last, that marks a complete folder."""


def is_gguf(source: str) -> bool:
    """Whether a resolved source is a GGUF file."""
    return source.endswith(".gguf")


def gguf_config(source: str) -> Any:
    """The configuration of a GGUF file, read from its unpacked folder if there is one.

    Raises:
        WeightsError: `gguf` is not installed, or the file cannot be read.
    """
    from transformers import AutoConfig

    path = Path(source)
    for folder in sorted(_home(path).glob("*/")):
        if (folder / DONE).exists():
            return AutoConfig.from_pretrained(folder)
    _require_gguf(source)
    try:
        return AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # the reader of the format may raise any exception
        raise WeightsError(
            f"cannot read {source!r} as a GGUF file: {_reason(error)}; it may be incomplete or "
            "damaged: download it again"
        ) from error


def unpacked(source: str, dtype: str) -> Path:
    """The folder with a GGUF file's dequantised weights and tokenizer; created if missing.

    Args:
        source: Path of the file.
        dtype: as declared by the backbone. `auto` is unpacked in bfloat16: the file's own types are
            quantised.

    Raises:
        WeightsError: `gguf` is missing, the file cannot be read, or the folder cannot be written.
    """
    path, wanted = Path(source), DTYPES.get(dtype, dtype)
    folder = _home(path) / wanted
    if (folder / DONE).exists():
        return folder
    _require_gguf(source)
    log.warning("unpacking %s into %s (once)", path.name, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{wanted}-", dir=folder.parent))
    except OSError as error:
        raise WeightsError(
            f"cannot unpack {source!r} into {folder.parent}: {error}; "
            "set LATENTMAS_CACHE to a folder that can be written"
        ) from error
    try:
        _unpack(path, part, wanted)
        (part / DONE).write_text(path.name, encoding="utf-8")
        part.replace(folder)
    except Exception as error:  # the readers of models and tokenizers may raise any exception
        if not (folder / DONE).exists():  # otherwise another process finished first
            raise WeightsError(
                f"cannot unpack {source!r} into {folder}: {_reason(error)}"
            ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _unpack(path: Path, folder: Path, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    own = {"gguf_file": path.name}
    model = AutoModelForCausalLM.from_pretrained(
        path.parent,
        dtype=getattr(torch, dtype),
        quantization_config=GgufConfig(dequantize=True),
        **own,
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path.parent, **own).save_pretrained(folder)


def _reason(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def _home(path: Path) -> Path:
    """Common prefix of a file's unpacked folders: its name, and a digest that detects changes."""
    stat = path.stat()
    with path.open("rb") as file:
        head = file.read(2**20)
        file.seek(-min(2**20, stat.st_size), os.SEEK_END)
        tail = file.read()
    content = hashlib.sha256(b"1" + str(stat.st_size).encode() + head + tail).hexdigest()
    return cache_folder() / "gguf" / f"{path.stem}-{content[:16]}"


def _require_gguf(source: str) -> None:
    try:
        import gguf  # noqa: F401  # transformers reads the file with it
    except ImportError as error:
        raise WeightsError(
            f"reading {source!r} needs the package gguf; install it with "
            "pip install 'latentmas[gguf]'"
        ) from error
