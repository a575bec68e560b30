"""Landlock, the kernel's own way for a process to give up rights, through its system calls."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from latentmas.errors import LatentMASError

__all__ = ["landlock_ruleset", "landlock_version"]

# The numbers are the same on all processors. The third call, 446, is made by the process that
# gives up its rights: see `inside.py`.
_CREATE_RULESET, _ADD_RULE = 444, 445
_VERSION_FLAG = 1
_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _READ_FILE | _READ_DIR
_WORK = _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM
_WORK |= _REFER | _TRUNCATE
_TCP = 0b11  # bind, connect
_SCOPES = 0b11  # abstract unix sockets, signals


def landlock_version() -> int:
    """Version of Landlock's interface in the running kernel; 0 when there is none."""
    if sys.platform != "linux":
        return 0
    try:
        return max(0, _call(_CREATE_RULESET, None, 0, _VERSION_FLAG))
    except OSError:
        return 0


def landlock_ruleset(
    *, read: Iterable[Path], listed: Iterable[Path], devices: Iterable[Path], work: Path
) -> int:
    """Describe what a process may still do; nothing changes for this process.

    Args:
        read: files, and directories with all below, that may be read.
        listed: directories in which, and below which, names may be listed.
        devices: device files that may be read and written.
        work: directory in which everything ordinary is allowed.

    Returns:
        A file descriptor, for the process that is to be bound; the caller closes it.

    Raises:
        LatentMASError: when the kernel has no Landlock.
        OSError: when the kernel refuses a rule.
    """
    version = landlock_version()
    if version < 1:
        raise LatentMASError("this kernel has no Landlock")
    handled = _file_rights(version)
    wanted = [handled, *([_TCP] if version >= 4 else []), *([_SCOPES] if version >= 6 else [])]
    ruleset = _call(_CREATE_RULESET, struct.pack(f"={len(wanted)}Q", *wanted), 8 * len(wanted), 0)
    try:
        for paths, rights in (
            (read, _READ),
            (listed, _READ_DIR),
            (devices, _READ_FILE | _WRITE_FILE),
            ((work,), _WORK),
        ):
            for path in paths:
                _allow(ruleset, path, rights & handled)
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def _file_rights(version: int) -> int:
    """Every right over files that this version of the interface knows."""
    rights = (1 << 13) - 1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        rights |= right if version >= since else 0
    return rights


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        parent = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return  # what cannot be reached need not be allowed
    try:
        allowed = rights if path.is_dir() else rights & _OF_FILES
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", allowed, parent), 0)
    finally:
        os.close(parent)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    longs = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *longs))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {errno.errorcode.get(code, code)} {os.strerror(code)}")
    return result
