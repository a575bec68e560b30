"""Files of an artefact, which a stranger may have made: read only when they are plain and small."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from latentmas.errors import WeightsError
from latentmas.safe_data.plain import Numbers, parse_json

__all__ = ["check_name", "check_plain_file", "inside", "read_bounded", "read_json"]


def check_name(name: object) -> str:
    """A relative path of plain names, from inside a file.

    Raises:
        WeightsError: LM502 when it is none: absolute, with `..`, a backslash or a drive.
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    if any(part in ("", ".", "..") or set(part) & set("\\\0:") for part in parts):
        raise WeightsError(
            f"LM502 {name!r:.100} leaves the folder, or is no plain name of a file in it; it is "
            "not read"
        )
    return str(name)


def inside(folder: Path, path: Path) -> bool:
    """Whether a path, symbolic links followed, is in the folder.

    A snapshot in the hub's cache is made of links to the `blobs` beside it.

    Raises:
        WeightsError: LM502 when a symbolic link leads back to itself.
    """
    try:
        root, found = folder.resolve(), path.resolve()
    except (RuntimeError, OSError) as error:  # which one depends on the version of Python
        raise WeightsError(
            f"LM502 {path} cannot be read: a symbolic link leads back to itself; put the file in "
            "its place"
        ) from error
    if root.parent.name == "snapshots" and (root.parent.parent / "blobs").is_dir():
        root = root.parent.parent
    return found.is_relative_to(root)


def check_plain_file(path: Path, most: int) -> int:
    """Size of a file that is a regular one of at most `most` bytes; it is not opened.

    Raises:
        WeightsError: LM502 when it is something else (a device, a pipe, a folder), or larger, or
            may not be looked at.
        FileNotFoundError: it is not there.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise WeightsError(f"LM502 {path} cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise WeightsError(f"LM502 {path} is no regular file; it is not read")
    if found.st_size > most:
        raise WeightsError(
            f"LM502 {path} has {found.st_size:,} bytes, larger than any such file ({most:,}); it "
            "is not read"
        )
    return found.st_size


def read_bounded(path: Path, most: int) -> bytes:
    """Content of a regular file of at most `most` bytes.

    Raises:
        WeightsError: LM502 when it is no such file, or cannot be read.
        FileNotFoundError: it is not there.
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
    """Plain data of a JSON file of an artefact; errors as `read_bounded`, and LM502 for no JSON."""
    raw = read_bounded(path, most)
    try:
        return parse_json(raw, numbers=numbers)
    except ValueError as error:
        raise WeightsError(f"LM502 {path} is not JSON: {error}") from error
