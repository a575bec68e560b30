"""What runs inside the sandbox: give up every right, then run the program.

This file is not imported. Its text is handed to a fresh interpreter with `-c`, so it uses the
standard library alone. Standard input carries one line of JSON, then the program; after that it
is at its end. The token is printed once everything is in place, so its absence means failure.
"""

from __future__ import annotations

import ctypes
import io
import json
import linecache
import os
import resource
import signal
import struct
import sys
import traceback
import types
from typing import Any

NAME = "<program>"
READY = ("functools", "fractions", "itertools", "math", "statistics")
RESTRICT_SELF = 446
SET_PARENT_DEATH_SIGNAL, DROP_BOUND, SET_SECCOMP, NO_NEW_PRIVILEGES = 1, 24, 22, 38
FILTER_MODE = 2
INSTALL_FILTER, NEW_LISTENER = 1, 8  # of the system call `seccomp`
MOST_DESCRIPTORS = 65536
HIGHEST_CAPABILITY = 63


class Program(ctypes.Structure):
    """`struct sock_fprog`: how many lines, and where they are."""

    _fields_ = (("count", ctypes.c_ushort), ("lines", ctypes.c_char_p))


def check(result: int, what: str) -> None:
    """Stop when a call into the kernel failed."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def confine(order: dict[str, Any]) -> None:
    """Give up rights, from the mildest to the filter, after which no more can be given up."""
    for name, bound in order["limits"].items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(number, (bound, bound))
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)

    def control(option: int, value: int, pointer: Any = zero) -> int:
        return int(libc.prctl(option, ctypes.c_ulong(value), pointer, zero, zero))

    if order["parent"] is not None:
        check(control(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL), "end with the parent")
        if os.getppid() != order["parent"]:
            raise OSError("the parent ended")
    for capability in range(HIGHEST_CAPABILITY + 1):
        control(DROP_BOUND, capability)  # fails for those that are unknown or already gone
    header = struct.pack("=Ii", 0x20080522, 0)
    check(libc.capset(header, bytes(24)), "drop capabilities")
    check(control(NO_NEW_PRIVILEGES, 1), "no new privileges")
    if order["ruleset"] is not None:
        number, ruleset = ctypes.c_long(RESTRICT_SELF), ctypes.c_long(order["ruleset"])
        check(libc.syscall(number, ruleset, ctypes.c_long(0)), "Landlock")
    report(libc, order)
    os.closerange(3, MOST_DESCRIPTORS)
    if order["filter"] is not None:
        mark, own = (struct.pack("=I", value) for value in (order["mark"], os.getpid()))
        lines = bytes.fromhex(order["filter"]).replace(mark, own)
        program = Program(len(lines) // 8, lines)
        check(control(SET_SECCOMP, FILTER_MODE, ctypes.byref(program)), "filter of system calls")


def report(libc: Any, order: dict[str, Any]) -> None:
    """Send the host the working directory and, where the kernel can, the filter that asks it."""
    import _socket  # the module `socket` would take as long to import as all else here

    descriptors = [os.open(".", os.O_RDONLY)]
    if order["thread_filter"] is not None:
        number, text = order["thread_filter"]
        lines = bytes.fromhex(text)
        program = Program(len(lines) // 8, lines)
        values = map(ctypes.c_long, (number, INSTALL_FILTER, NEW_LISTENER))
        listener = int(libc.syscall(*values, ctypes.byref(program)))
        # A filter around this process may ask somebody else; then the host counts the threads.
        descriptors += [] if listener < 0 else [listener]
    message = struct.pack(f"={len(descriptors)}i", *descriptors)
    control = _socket.socket(fileno=order["control"])
    control.sendmsg([b"."], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, message)])
    control.detach()  # closed with all other descriptors


class Packages:
    """Finds the installed packages that may be imported, whose folder itself cannot be listed."""

    def __init__(self, modules: dict[str, str], metadata: list[str]) -> None:
        """Take where each module is, by name, and the directories that describe the packages."""
        self.modules, self.metadata = modules, metadata

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Say how a module is loaded; submodules are found in the usual way."""
        import importlib.machinery
        import importlib.util

        place = self.modules.get(name)
        if place is None:
            return None
        if place.endswith(os.sep):  # a package without an `__init__.py`
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [place]
            return spec
        return importlib.util.spec_from_file_location(name, place)

    def find_distributions(self, context: Any) -> Any:
        """Tell `importlib.metadata` about the packages."""
        from importlib.metadata import PathDistribution
        from pathlib import Path

        wanted = None if context.name is None else context.name.replace("-", "_").lower()
        for place in map(Path, self.metadata):
            if wanted in (None, place.name.split("-")[0].lower()):
                yield PathDistribution(place)


def run(source: bytes, namespace: dict[str, Any]) -> int:
    """Run a program as `__main__`.

    Returns:
        1 when an exception was left, which is then shown without the frames of this file; else 0.
        `SystemExit` passes through.
    """
    lines = source.decode("utf-8", "replace").splitlines(keepends=True)
    linecache.cache[NAME] = (len(source), None, lines, NAME)
    try:
        exec(compile(source, NAME, "exec", dont_inherit=True), namespace)
    except SystemExit:
        raise
    except BaseException as error:
        sys.stdout.flush()
        frames = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, frames)
        return 1
    return 0


def main() -> int:
    """Read the order, obey it, say so, and run the program."""
    order = json.loads(sys.stdin.buffer.readline())
    source = sys.stdin.buffer.read()
    confine(order)
    if order["modules"]:
        sys.meta_path.append(Packages(order["modules"], order["metadata"]))
    module = types.ModuleType("__main__")
    for name in READY:
        setattr(module, name, __import__(name))
    sys.modules["__main__"] = module
    sys.stdout.write(order.pop("token"))
    sys.stdout.flush()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    sys.argv = [NAME]
    return run(source, module.__dict__)


if __name__ == "__main__":
    sys.exit(main())
