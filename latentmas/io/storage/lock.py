"""A lock that admits one writer at a time to a team's folder.

Writers hold an advisory lock (`flock`) on a file in the folder. The operating system releases the
lock when its holder exits for any reason, so a file left behind by a killed process blocks nobody.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentmas.errors import LatentMASError
from latentmas.redact import get_logger

if sys.platform != "win32":
    import fcntl

__all__ = ["LOCK", "locked"]

log = get_logger("latentmas.io")

LOCK = ".latentmas-lock"
PATIENCE = 600.0
"""Seconds that a writer waits for another writer."""
PAUSE = 0.005
"""Seconds between two attempts."""
_BUSY = (errno.EAGAIN, errno.EACCES)
"""Errors of `flock` while the lock is held; any other error means that locks are unsupported."""


@contextmanager
def locked(folder: Path, *, patience: float = PATIENCE, name: str = LOCK) -> Iterator[None]:
    """Hold the write lock of a folder, exclusive among threads and processes.

    On a file system without locks, this logs a warning and does not exclude other writers.

    Args:
        folder: the team's folder, which must exist.
        patience: maximum wait for another writer, in seconds.
        name: name of the file; locks of different names are independent of each other.

    Raises:
        LatentMASError: another writer still holds the lock.
        OSError: the folder cannot be written.
    """
    path = folder / name
    handle = _acquire(path, time.monotonic() + patience)
    try:
        yield
    finally:
        if handle is not None:
            # Remove the file while the lock is still held. A writer that already waits on this file
            # gets the lock next, sees that the file is gone (`_is_current`) and opens a new one.
            with suppress(OSError):
                path.unlink()
            os.close(handle)


def _acquire(path: Path, deadline: float) -> int | None:
    """Wait for the lock and return its file descriptor; None on a file system without locks."""
    folder = path.parent
    while True:
        handle, held = _open(path), False
        try:
            held = _try(handle) and _is_current(handle, path)
        except OSError as error:
            log.warning(
                "%s: the file system has no locks (%s); save a team from one process at a time",
                folder,
                error.strerror,
            )
            with suppress(OSError):
                path.unlink()
            return None
        finally:
            if not held:
                os.close(handle)
        if held:
            return handle
        if time.monotonic() > deadline:
            raise LatentMASError(
                f"another process is still writing to {str(folder)!r}; wait until it has finished, "
                "or choose another folder"
            )
        time.sleep(PAUSE)


def _open(path: Path) -> int:
    """Open the lock file, without following a symbolic link in its place."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink():
        path.unlink()
    return os.open(path, flags, 0o644)


def _try(handle: int) -> bool:
    """Try to take the lock; raises OSError on a file system without locks."""
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "no flock on Windows")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True


def _is_current(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(handle))
