"""What a program holds on the disk of the host, deleted files included."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentmas.sandbox.folder import open_folder
from latentmas.sandbox.limits import Limits

__all__ = ["is_too_large"]

_BLOCK = 512  # bytes, the unit of st_blocks
_PATIENCE = 2.0  # seconds in which a process must come to rest


@dataclass
class _Usage:
    """A count that ends once it is past a bound."""

    limits: Limits
    entries: int = 0
    size: int = 0
    """Bytes of blocks."""
    exact: bool = True
    """False when something moved during the count or could not be looked at."""

    def too_large(self) -> bool:
        return self.entries > self.limits.folder_entries or self.size > self.limits.folder_bytes


def is_too_large(folder: int, pid: int, limits: Limits) -> bool:
    """Whether a process holds more than it may: in its working directory or in deleted files.

    Counting beside a process that renames its files all the time could miss them for ever, so
    when anything moved during the count, the process is halted and counted again.

    Args:
        folder: descriptor of the working directory.
        pid: the process, a child of this one, which is not collected before this returns.
        limits: how many bytes and entries are allowed, and how deep they may be nested.
    """
    usage = _usage(folder, pid, limits)
    if usage.exact or usage.too_large() or sys.platform != "linux":
        return usage.too_large()
    with _halted(pid) as state:
        usage = _usage(folder, pid, limits)
    return usage.too_large() or state == "runs" or (state == "rests" and not usage.exact)


def _usage(folder: int, pid: int, limits: Limits) -> _Usage:
    usage = _Usage(limits)
    _count(folder, usage, limits.folder_depth)
    if not usage.too_large():
        _count_deleted(pid, usage)
    return usage


def _count(folder: int, usage: _Usage, depth: int) -> None:
    """Add what is in a directory, down to `depth` more levels; deeper is too large."""
    with os.scandir(folder) as found:
        entries = list(found)
    usage.entries += len(entries)
    for entry in entries:
        if usage.too_large():
            return
        try:
            status = entry.stat(follow_symlinks=False)
            usage.size += status.st_blocks * _BLOCK
            if stat.S_ISDIR(status.st_mode):
                _enter(entry.name, folder, usage, depth)
        except (FileNotFoundError, NotADirectoryError):
            usage.exact = False


def _enter(name: str, parent: int, usage: _Usage, depth: int) -> None:
    if depth == 0:
        usage.entries = usage.limits.folder_entries + 1
        return
    try:
        folder = open_folder(name, parent)
    except PermissionError:
        return  # made without permissions, so the program cannot enter it either
    try:
        _count(folder, usage, depth - 1)
    finally:
        os.close(folder)


def _count_deleted(pid: int, usage: _Usage) -> None:
    """Add files without a name, which live on while they are open or mapped.

    Open files come first: a file can be mapped and closed between the two looks, but nothing
    turns a mapping into an open file again.
    """
    process = Path("/proc", str(pid))
    seen: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        try:
            for opened in (process / "fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # closed
                    status = opened.stat()
                    if stat.S_ISREG(status.st_mode) and not status.st_nlink:
                        usage.size += (status.st_ino not in seen) * status.st_blocks * _BLOCK
                        seen.add(status.st_ino)
            # Only the superuser may look behind a mapping, so it counts as the largest file.
            usage.size += len(_mapped(process / "maps") - seen) * usage.limits.file_bytes
        except PermissionError:
            usage.exact = False


def _mapped(maps: Path) -> set[int]:
    """Inodes of the deleted files that are mapped."""
    lines = maps.read_bytes().splitlines()
    return {int(line.split()[4]) for line in lines if line.endswith(b" (deleted)")}


@contextlib.contextmanager
def _halted(pid: int) -> Iterator[Literal["rests", "runs", "ended"]]:
    """Hold a child still, and say whether it came to rest; one that wakes itself does not."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield _state(pid)
    finally:
        os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> Literal["rests", "runs", "ended"]:
    """What a child does once all its threads have stopped, or after a while."""
    end = time.monotonic() + _PATIENCE
    look = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT
    while (found := os.waitid(os.P_PID, pid, look)) is None:
        if time.monotonic() > end:
            return "runs"
        time.sleep(0.001)
    return "rests" if found.si_code == os.CLD_STOPPED else "ended"
