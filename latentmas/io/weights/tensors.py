"""Read and write safetensors files with torch, raising the errors that this package documents."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from latentmas.atomic import replacing_file
from latentmas.errors import WeightsError

__all__ = ["load_tensors", "save_tensors"]

_CODE = re.compile(r"os error (\d+)")


def save_tensors(state: dict[str, Tensor], path: Path, metadata: Mapping[str, str]) -> Path:
    """Write tensors to a file atomically.

    Raises:
        WriteError: the file cannot be written, for the reason that the operating system gives.
    """
    with replacing_file(path) as temporary:
        try:
            safetensors.save_file(state, temporary, metadata=dict(metadata))
        except SafetensorError as error:
            # safetensors reports a failed write in its own error type, with the errno in the text.
            # An OSError lets `replacing_file` explain it like any other failed write.
            code = _CODE.search(str(error))
            if code is None:
                raise
            reason = str(error).rpartition("I/O error: ")[2].partition(" (os error")[0]
            raise OSError(int(code[1]), reason) from error
    return path


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Load all tensors of a file.

    Raises:
        WeightsError: LM503 when the file cannot be read or does not fit in memory.
        FileNotFoundError: the file does not exist.
    """
    try:
        return safetensors.load_file(path)
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"LM503 {path} cannot be read: {error}") from error
    except MemoryError as error:
        raise WeightsError(
            f"LM503 {path} cannot be read: there is not enough memory for its "
            f"{path.stat().st_size:,} bytes"
        ) from error
