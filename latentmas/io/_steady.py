"""Readers that notice when a team has changed under them.

Readers take no lock at first, because they may have no right to write to the folder: they read,
look whether the manifest is still the same one, and read again if it is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

from latentmas.errors import LatentMASError, WeightsError
from latentmas.io._folder import COMMIT, MANIFEST
from latentmas.io._lock import locked

__all__ = ["read_steadily"]

T = TypeVar("T")

ATTEMPTS = 5
"""Times that a team is read before its reader keeps the writers away."""
PAUSE = 0.01


def read_steadily(read: Callable[[], T], *folders: Path) -> T:
    """What `read` makes of teams' folders while nobody changes the teams.

    Args:
        read: called again when a team has changed in the meantime; the last time while writers are
            kept away, where the reader may write to the folder. It must not call this function.
        *folders: of the teams.

    Raises:
        WeightsError: LM502, a team changed each time.
        Exception: whatever `read` raises on teams that do not change.
    """
    for attempt in range(ATTEMPTS):
        before = _marks(folders)
        try:
            found = read()
        except (LatentMASError, OSError):
            # While the parts of a change are being moved to their places, a part may go between
            # the look for it and its opening, though the manifest stays the same.
            moving = any((folder / COMMIT).exists() for folder in folders)
            if before == _marks(folders) and not moving:
                raise
        else:
            if before == _marks(folders):
                return found
        time.sleep(PAUSE * attempt)
    with ExitStack() as stack:
        for folder in sorted({folder.resolve() for folder in folders}):  # one order: no deadlock
            with suppress(OSError):
                stack.enter_context(locked(folder))
        before = _marks(folders)
        found = read()
        if before == _marks(folders):
            return found
    raise WeightsError(
        f"LM502 {' or '.join(repr(str(folder)) for folder in folders)} was changed each of the "
        f"{ATTEMPTS + 1} times that it was read; wait until its writers have ended, then try again"
    )


def _marks(folders: Sequence[Path]) -> list[tuple[int, ...] | None]:
    return [_mark(folder) for folder in folders]


def _mark(folder: Path) -> tuple[int, ...] | None:
    """What tells one saved manifest from the next: its file, and the time it was written."""
    for home in (folder / COMMIT, folder):
        with suppress(OSError):
            found = (home / MANIFEST).stat()
            return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
    return None
