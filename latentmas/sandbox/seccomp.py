"""A filter of system calls, built here as plain bytes and loaded by the process that it binds.

It is a list of what a calculation never needs: other processes, sockets, changes to files by
path, anything that changes the kernel. It closes what Landlock leaves open on older kernels and
what a name space does not count (processes of the superuser).
"""

from __future__ import annotations

import errno
import platform
import struct
import sys

from latentmas.sandbox.syscalls import DENIED, NUMBERS

__all__ = ["PID_MARK", "seccomp_filter", "thread_filter"]

PID_MARK = 0x7FFFA11D
"""Stands for the process's own id, which only the process itself knows; larger than any id."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NEWEST_CALL = 480  # calls above did not exist when this was written, nor does Python need them
_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR, _ASK = 0x7FFF0000, 0x80000000, 0x00050000, 0x7FC00000

# A thread that shares memory, place, open files and handlers with all others: what it opens or
# maps is then found where the watcher looks.
_CLONE_THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000
_CLOSE_RANGE_UNSHARE = 2
_MAP_SHARED_ANONYMOUS = 0x1 | 0x20
_AF_UNIX = 1
_O_TRUNC, _ACCESS_MODE = 0x200, 3
# Whom a descriptor signals, with which signal; leases and notices on files.
_FCNTL_DENIED = (8, 10, 15, 1024, 1026)
# Type into a terminal; whom a descriptor signals.
_IOCTL_DENIED = (0x5412, 0x541C, 0x8901, 0x8902)
# Undo "end when the parent ends"; keep the owner from looking into /proc.
_PRCTL_DENIED = (1, 4)


def seccomp_filter() -> bytes | None:
    """The program as an array of `struct sock_filter`, 8 bytes each.

    `PID_MARK` in it must be replaced by the process's id. Returns None on a processor whose
    numbers of system calls are not known here.
    """
    machine = _machine()
    if machine is None:
        return None
    lines = [_load(4), _jump(_EQUAL, _ARCHITECTURES[machine], 1, 0), _line(_RETURN, _KILL)]
    lines += [_load(0), _jump(_AT_LEAST, _NEWEST_CALL, 0, 1), _refuse(errno.ENOSYS)]
    for number in sorted(DENIED[machine].values()):
        lines += _when(number, [_refuse()])
    for name, number in NUMBERS[machine].items():
        lines += _when(number, _judge(name))
    return b"".join([*lines, _line(_RETURN, _ALLOW)])


def thread_filter() -> tuple[int, bytes] | None:
    """A second filter, under which the host is asked before a thread begins.

    It stands beside `seccomp_filter`, whose refusals win.

    Returns:
        The number of the system call `seccomp`, which installs it, and the filter; None on the
        same processors.
    """
    machine = _machine()
    if machine is None:
        return None
    clone = _when(NUMBERS[machine]["clone"], [_line(_RETURN, _ASK)])
    return DENIED[machine]["seccomp"], b"".join([_load(0), *clone, _line(_RETURN, _ALLOW)])


def _machine() -> str | None:
    """The processor's name in the tables, or None when they do not know it."""
    machine = platform.machine().lower().replace("arm64", "aarch64").replace("amd64", "x86_64")
    known = machine in _ARCHITECTURES and sys.byteorder == "little" and sys.maxsize > 2**32
    return machine if sys.platform == "linux" and known else None


def _judge(name: str) -> list[bytes]:
    """Lines that decide on a call by its arguments; each path through them returns."""
    if name in ("clone3", "openat2"):  # flags lie in memory; callers fall back to the older call
        return [_refuse(errno.ENOSYS)]
    if name == "sendto":  # an address would reach beyond a pair of connected ends
        low, high = _argument(4), _argument(4) + 4
        zero = [_load(low), _jump(_EQUAL, 0, 0, 2), _load(high), _jump(_EQUAL, 0, 1, 0)]
        return [*zero, _refuse(), _line(_RETURN, _ALLOW)]
    if name == "clone":
        thread = [_load(_argument(0)), _line(_AND, _CLONE_THREAD)]
        return [*thread, _jump(_EQUAL, _CLONE_THREAD, 0, 1), _line(_RETURN, _ALLOW), _refuse()]
    if name == "close_range":
        unshare = [_load(_argument(2)), _jump(_ANY_BIT, _CLOSE_RANGE_UNSHARE, 0, 1)]
        return [*unshare, _refuse(), _line(_RETURN, _ALLOW)]
    if name == "mmap":  # memory that stays whole while a page of it is mapped escapes RLIMIT_AS
        return _none_of(3, (_MAP_SHARED_ANONYMOUS,), mask=_MAP_SHARED_ANONYMOUS)
    if name in ("kill", "tgkill"):
        return _only(0, PID_MARK)
    if name == "prlimit64":
        return _only(0, 0)
    if name == "socketpair":
        return _only(0, _AF_UNIX)
    if name in ("open", "openat"):  # truncating without write access; access mode 3 is for devices
        refused = (_O_TRUNC, _O_TRUNC | _ACCESS_MODE, _ACCESS_MODE)
        return _none_of(1 if name == "open" else 2, refused, mask=_O_TRUNC | _ACCESS_MODE)
    denied = {"fcntl": (1, _FCNTL_DENIED), "ioctl": (1, _IOCTL_DENIED), "prctl": (0, _PRCTL_DENIED)}
    return _none_of(*denied[name])


def _only(index: int, value: int) -> list[bytes]:
    """Allow the call when the lower half of one argument has that value."""
    test = [_load(_argument(index)), _jump(_EQUAL, value, 0, 1)]
    return [*test, _line(_RETURN, _ALLOW), _refuse()]


def _none_of(index: int, values: tuple[int, ...], mask: int | None = None) -> list[bytes]:
    """Allow the call unless the lower half of one argument, masked, is among the values."""
    start = [_load(_argument(index))] + ([] if mask is None else [_line(_AND, mask)])
    tests = [_jump(_EQUAL, value, len(values) - at, 0) for at, value in enumerate(values)]
    return [*start, *tests, _line(_RETURN, _ALLOW), _refuse()]


def _when(number: int, lines: list[bytes]) -> list[bytes]:
    return [_jump(_EQUAL, number, 0, len(lines)), *lines]


def _argument(index: int) -> int:
    """Offset in bytes of an argument's lower half in `struct seccomp_data`."""
    return 16 + 8 * index


def _load(offset: int) -> bytes:
    return _line(_LOAD, offset)


def _refuse(error: int = errno.EPERM) -> bytes:
    return _line(_RETURN, _ERROR | error)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _line(code: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, 0, 0, value)
