"""Read a team consistently while other processes may be replacing it.

At first, readers take no lock, because they may lack write access to the folder: they read, check
that the manifest is still the same file, and read again if it is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

from latentmas.errors import LatentMASError, WeightsError
from latentmas.io.storage.folder import COMMIT, MANIFEST
from latentmas.io.storage.lock import locked

__all__ = ["read_steadily"]

T = TypeVar("T")

ATTEMPTS = 5
"""Attempts without a lock before the reader locks out the writers."""
PAUSE = 0.01


def read_steadily(read: Callable[[], T], *folders: Path) -> T:
    """Call `read` until the teams' folders stay unchanged during the call, and return its result.

    Args:
        read: function that reads the folders. It is called again if a team has changed meanwhile;
            the last call holds the write locks if the folders are writable, so it must not call
            `read_steadily` itself.
        *folders: the teams' folders.

    Raises:
        WeightsError: LM502 when a team changed during every call.
        Exception: any exception that `read` raises while the teams stay unchanged.
    """
    for attempt in range(ATTEMPTS):
        before = _marks(folders)
        try:
            found = read()
        except (LatentMASError, OSError):
            # While a writer moves committed files to their final paths, a file may disappear after
            # its path was looked up and before it is opened, although the manifest is the same.
            moving = any((folder / COMMIT).exists() for folder in folders)
            if before == _marks(folders) and not moving:
                raise
        else:
            if before == _marks(folders):
                return found
        time.sleep(PAUSE * attempt)
    with ExitStack() as stack:
        # Locking in a fixed order prevents deadlocks.
        for folder in sorted({folder.resolve() for folder in folders}):
            with suppress(OSError):
                stack.enter_context(locked(folder))
        before = _marks(folders)
        found = read()
        if before == _marks(folders):
            return found
    raise WeightsError(
        f"LM502 {' or '.join(repr(str(folder)) for folder in folders)} changed during each of "
        f"{ATTEMPTS + 1} attempts to read it; wait until its writers have finished, and try again"
    )


def _marks(folders: Sequence[Path]) -> list[tuple[int, ...] | None]:
    return [_mark(folder) for folder in folders]


def _mark(folder: Path) -> tuple[int, ...] | None:
    """Identity of the current manifest: device, inode, modification time and size of its file."""
    for home in (folder / COMMIT, folder):
        with suppress(OSError):
            found = (home / MANIFEST).stat()
            return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
    return None
