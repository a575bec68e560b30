"""The private working directory of one program: how large it is, and its removal."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from latentmas.tools._limits import Limits

__all__ = ["is_too_large", "work_folder"]

_ATTEMPTS = 50
_BLOCK = 512  # bytes, the unit of st_blocks


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A new empty directory that nobody else can enter; it is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="latentmas-program-"))
    try:
        yield folder
    finally:
        _remove(folder)


def is_too_large(folder: Path, limits: Limits) -> bool:
    """Whether the directory is past its bounds in bytes or entries; stops counting once it is."""
    entries = size = 0
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as found:
                for entry in found:
                    entries += 1
                    size += _bytes_on_disk(entry)
                    if entries > limits.folder_entries or size > limits.folder_bytes:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except (FileNotFoundError, PermissionError):
            continue  # gone in the meantime, or made without permissions and thus empty
        except OSError:
            return True  # nested beyond what a path can name
    return False


def _bytes_on_disk(entry: os.DirEntry[str]) -> int:
    with contextlib.suppress(OSError):
        return entry.stat(follow_symlinks=False).st_blocks * _BLOCK
    return 0


def _remove(folder: Path) -> None:
    """Remove a directory however deep it is nested: what is inside moves up until all is flat.

    Tries again when a process that is being ended still writes.
    """
    fresh = itertools.count()
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(OSError):
            while found := list(os.scandir(folder)):
                for entry in found:
                    _flatten(entry, folder, fresh)
            folder.rmdir()
            return


def _flatten(entry: os.DirEntry[str], folder: Path, fresh: Iterator[int]) -> None:
    path = Path(entry.path)
    if not entry.is_dir(follow_symlinks=False):
        path.unlink()
        return
    path.chmod(0o700)
    for child in list(os.scandir(path)):
        if child.is_dir(follow_symlinks=False):
            Path(child.path).chmod(0o700)  # a directory moves only when it may be written
        Path(child.path).rename(folder / f"moved-{os.urandom(4).hex()}-{next(fresh)}")
    path.rmdir()
