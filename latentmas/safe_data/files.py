"""Files of an untrusted artefact, read only if they are regular files within a size limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from latentmas.errors import WeightsError
from latentmas.safe_data.plain import Numbers, parse_json

__all__ = ["check_name", "check_plain_file", "inside", "read_bounded", "read_json"]


def check_name(name: object) -> str:
    """Check a relative path found inside a file; it must consist of plain names.

    Raises:
        WeightsError: The path is absolute or contains `..`, a backslash or a drive (LM502).
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    if any(part in ("", ".", "..") or set(part) & set("\\\0:") for part in parts):
        raise WeightsError(
            f"LM502 {name!r:.100} leaves the folder, or is not a plain name of a file in it; it is "
            "not read"
        )
    return str(name)


def inside(folder: Path, path: Path) -> bool:
    """Whether a path is in the folder after following symbolic links.

    A snapshot in the hub's cache consists of links to a `blobs` folder next to it.

    Raises:
        WeightsError: Symbolic links form a loop (LM502).
    """
    try:
        root, found = folder.resolve(), path.resolve()
    except (RuntimeError, OSError) as error:  # the type depends on the version of Python
        raise WeightsError(
            f"LM502 {path} cannot be read: its symbolic links form a loop; put the file in "
            "its place"
        ) from error
    if root.parent.name == "snapshots" and (root.parent.parent / "blobs").is_dir():
        root = root.parent.parent
    return found.is_relative_to(root)


def check_plain_file(path: Path, most: int) -> int:
    """Size of a regular file of at most `most` bytes, without opening it.

    Raises:
        WeightsError: It is not a regular file (a device, a pipe, a folder), is too large, or cannot
            be accessed (LM502).
            FileNotFoundError: The file does not exist.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise WeightsError(f"LM502 {path} cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise WeightsError(f"LM502 {path} is not a regular file, so it is not read")
    if found.st_size > most:
        raise WeightsError(
            f"LM502 {path} has {found.st_size:,} bytes, more than the limit for such files "
            f"({most:,}), so it is not read"
        )
    return found.st_size


def read_bounded(path: Path, most: int) -> bytes:
    """Content of a regular file of at most `most` bytes.

    Raises:
        WeightsError: It is not such a file or cannot be read (LM502).
        FileNotFoundError: The file does not exist.
    """
    check_plain_file(path, most)
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise WeightsError(f"LM502 {path} cannot be read: {error.strerror or error}") from error
    if len(raw) > most:
        raise WeightsError(f"LM502 {path} grew beyond {most:,} bytes while it was read")
    return raw


def read_json(path: Path, most: int, *, numbers: Numbers = "plain") -> Any:
    """Plain data of an artefact's JSON file; same errors as `read_bounded`, LM502 if not JSON."""
    raw = read_bounded(path, most)
    try:
        return parse_json(raw, numbers=numbers)
    except ValueError as error:
        raise WeightsError(f"LM502 {path} is not JSON: {error}") from error
