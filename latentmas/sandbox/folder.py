"""The private working directory of one program on the host: how it is entered, and its removal.

The program may have put anything into it and named it as it likes. So everything here goes through
descriptors of directories and follows no link: a name can be made to point elsewhere between two
calls, an open directory cannot.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from latentmas.redact import get_logger

__all__ = ["Folder", "open_folder", "work_folder"]

_PATH_ONLY: int = getattr(os, "O_PATH", 0)
_FOLDER: int = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | os.O_CLOEXEC
_PATIENCE = 60.0  # seconds
_log = get_logger(__name__)


@dataclass(frozen=True)
class Folder:
    """A directory and a descriptor of it, which means the same whatever becomes of the name."""

    path: Path
    fd: int


@contextlib.contextmanager
def work_folder() -> Iterator[Folder]:
    """A new empty directory that no other user can enter; it is removed afterwards.

    Leave the context only after everything that could write there has ended.
    """
    path = Path(tempfile.mkdtemp(prefix="latentmas-program-")).resolve()
    fd = os.open(path, os.O_RDONLY | _FOLDER)
    try:
        yield Folder(path, fd)
    finally:
        try:
            _empty(fd)
            path.rmdir()
        except OSError as error:
            _log.warning("could not remove the working directory %s: %s", path, error)
        finally:
            os.close(fd)


def open_folder(name: str, parent: int) -> int:
    """Descriptor of a directory inside another.

    Raises:
        OSError: when the name is anything else now, a link to a directory included.
    """
    return os.open(name, os.O_RDONLY | _FOLDER, dir_fd=parent)


def _empty(root: int) -> None:
    """Remove what is in a directory, however deep: what lies below moves up until all is flat.

    Raises:
        OSError: when something cannot be removed, or somebody keeps writing.
    """
    fresh = itertools.count()
    end = time.monotonic() + _PATIENCE
    while names := _names(root):
        if time.monotonic() > end:
            raise TimeoutError(f"it is not empty after {_PATIENCE:g} s")
        for name in names:
            try:
                os.unlink(name, dir_fd=root)
            except (IsADirectoryError, PermissionError):  # Linux says the one, POSIX the other
                _flatten(name, root, fresh)


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as found:
        return [entry.name for entry in found]


def _flatten(name: str, root: int, fresh: Iterator[int]) -> None:
    """Move the content of a directory up into `root`, then remove it."""
    _unlock(name, root)
    folder = open_folder(name, root)
    try:
        for child in _names(folder):
            # A directory can be moved only by those who may write into it.
            with contextlib.suppress(NotADirectoryError):
                _unlock(child, folder)
            moved = f"moved-{os.urandom(4).hex()}-{next(fresh)}"
            os.rename(child, moved, src_dir_fd=folder, dst_dir_fd=root)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=root)


def _unlock(name: str, parent: int) -> None:
    """Allow oneself everything in a directory.

    Raises:
        OSError: when the name is anything but a directory.
    """
    if sys.platform != "linux":
        os.chmod(name, 0o700, dir_fd=parent, follow_symlinks=False)
        return
    # Opened for its place alone, a directory needs no right of its own; `fchmod` refuses such
    # a descriptor, but its entry in /proc leads to exactly this directory.
    fd = os.open(name, _PATH_ONLY | _FOLDER, dir_fd=parent)
    try:
        Path(f"/proc/self/fd/{fd}").chmod(0o700)
    finally:
        os.close(fd)
