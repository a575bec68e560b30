"""Bound the threads of a program: the kernel asks here before each one begins.

A filter of system calls cannot count, but it can hold a call until another process has decided
on it (`SECCOMP_RET_USER_NOTIF`). So the bound needs no rights and holds for the superuser too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import struct
import sys
from pathlib import Path

__all__ = ["answer", "can_ask", "thread_count"]

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
_REQUEST_BYTES = 80  # of `struct seccomp_notif`
_CONTINUE = 1
_SINCE = (5, 5)  # the kernel that can let a held call continue


def can_ask() -> bool:
    """Whether the kernel is new enough; a filter around this process can still forbid it."""
    if sys.platform != "linux":
        return False
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor[:2])) or 0)) >= _SINCE


def thread_count(pid: int) -> int:
    """Threads of the process that has this one.

    Raises:
        OSError: when it has ended, or /proc does not show it.
    """
    return Path(f"/proc/{pid}/task").stat().st_nlink - 2  # a directory counts itself and its parent


def answer(listener: int, most: int) -> bool:
    """Decide on one thread that is about to begin.

    Two threads that ask at once may both be let through, so for a moment there can be up to
    twice as many; later ones are then refused.

    Args:
        listener: descriptor of the filter, on which something happened.
        most: threads that the process may have.

    Returns:
        False once nobody is left who could ask.
    """
    import fcntl

    poll = select.poll()
    poll.register(listener, select.POLLIN)
    happened = sum(events for _, events in poll.poll(0))
    if not happened & select.POLLIN:  # receiving would wait for ever
        return not happened
    request = bytearray(_REQUEST_BYTES)
    with contextlib.suppress(OSError):  # killed in the meantime
        fcntl.ioctl(listener, _RECEIVE, request)
        identity, pid = struct.unpack_from("=QI", request)
        granted = _may_begin(pid, most)
        error, flags = (0, _CONTINUE) if granted else (-errno.EAGAIN, 0)
        fcntl.ioctl(listener, _SEND, struct.pack("=QqiI", identity, 0, error, flags))
    return True


def _may_begin(pid: int, most: int) -> bool:
    try:
        return thread_count(pid) < most
    except OSError:
        return False
