"""One writer at a time in a team's folder.

Writers hold an advisory lock (`flock`) on a file in the folder. The operating system drops the lock
when its holder ends, however it ends, so that a file left behind by a killed process blocks nobody.
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

__all__ = ["locked"]

log = get_logger("latentmas.io")

LOCK = ".latentmas-lock"
PATIENCE = 600.0
"""Seconds that a writer waits for another one."""
PAUSE = 0.005
"""Seconds between two tries."""
_BUSY = (errno.EAGAIN, errno.EACCES)
"""What `flock` says while another holder has the lock; anything else means that it cannot lock."""


@contextmanager
def locked(folder: Path, *, patience: float = PATIENCE) -> Iterator[None]:
    """Be the only writer of a folder, among threads and processes.

    Where the file system has no locks, a warning says so and other writers are not kept away.

    Args:
        folder: of the team; it exists.
        patience: seconds to wait for another writer.

    Raises:
        LatentMASError: another writer still holds the lock.
        OSError: the folder cannot be written.
    """
    handle = _acquire(folder, time.monotonic() + patience)
    try:
        yield
    finally:
        if handle is not None:
            # Removed while it is held: whoever waits for this very file finds it gone, and opens
            # the next one (`_is_current`).
            with suppress(OSError):
                (folder / LOCK).unlink()
            os.close(handle)


def _acquire(folder: Path, deadline: float) -> int | None:
    """A handle that holds the lock; None where there are no locks."""
    path = folder / LOCK
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
                f"another process is still writing to {str(folder)!r}; wait until it has ended, or "
                "choose another folder"
            )
        time.sleep(PAUSE)


def _open(path: Path) -> int:
    """Open the lock's file, and never what a symbolic link in its place leads to."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink():
        path.unlink()
    return os.open(path, flags, 0o644)


def _try(handle: int) -> bool:
    """Take the lock if it is free; OSError where there are no locks."""
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
    """Whether an open file is still the one of that name."""
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(handle))
