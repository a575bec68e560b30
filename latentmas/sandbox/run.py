"""Run a Python program where it can compute and print, and nothing else.

Two kinds of sandbox: `bubblewrap` puts the program into name spaces of its own, `landlock` takes
its rights away. Both add a filter of system calls, resource limits, an empty environment and a
private working directory. A kind counts as present only after a program was tried in it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentmas.errors import LatentMASError
from latentmas.sandbox.bubblewrap import WORK, bubblewrap, find_bubblewrap
from latentmas.sandbox.folder import work_folder
from latentmas.sandbox.interpreter import executable, interpreter
from latentmas.sandbox.landlock import landlock_ruleset, landlock_version
from latentmas.sandbox.limits import MEBIBYTE, Limits
from latentmas.sandbox.packages import Packages, find_packages
from latentmas.sandbox.seccomp import PID_MARK, seccomp_filter, thread_filter
from latentmas.sandbox.supervise import Supervisor, supervise
from latentmas.sandbox.threads import can_ask
from latentmas.sandbox.watch import Finished, watch

__all__ = ["KINDS", "Kind", "refusal", "run_program", "sandbox_facts", "sandbox_kind", "working"]

Kind = Literal["bubblewrap", "landlock"]
KINDS: tuple[Kind, ...] = ("bubblewrap", "landlock")
"""The strongest first."""

_INSIDE = Path(__file__).with_name("inside.py")
_READABLE_DEVICES = (Path("/dev/urandom"),)
_DEVICES = (Path("/dev/null"),)
# numpy would start a thread for each core, and reserve memory for each.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# Tried in each kind: a file that is surely there must not open, nor a socket.
_TRIAL = """
import socket
for forbidden in (lambda: open({path!r}), lambda: socket.socket()):
    try:
        forbidden()
    except OSError:
        continue
    print("open")
print("ran")
"""
_REFUSED = "refused beyond that"
_STOPPED = "stopped beyond that, checked 50 times a second, because"
_lock = threading.Lock()


@dataclass(frozen=True)
class _Place:
    """How to start the interpreter in one kind of sandbox."""

    supervisor: Supervisor
    """Looks after the program."""
    work: Path
    """The working directory as the program sees it."""
    folder: Path
    """The directory in which the command starts."""
    inherit: tuple[int, ...]
    """File descriptors that the command keeps."""
    prefix: tuple[str, ...] = ()
    """Command line before the interpreter's own."""
    ruleset: int | None = None
    """File descriptor of a Landlock ruleset."""
    parent: int | None = None
    """Process that the interpreter must not outlive; None where something else sees to that."""


def sandbox_kind() -> Kind | None:
    """The strongest kind of sandbox that works on this machine; None when none does.

    The first call tries the kinds, which takes up to a second; later calls know.
    """
    return next((kind for kind in KINDS if working(kind)), None)


def working(kind: Kind) -> Kind | None:
    """That kind if it works on this machine, else None."""
    return kind if _problem(kind) is None else None


def refusal(kind: Kind | None = None, *, unsafe: str = "python_tool(unsafe=True)") -> str:
    """Why a kind, or every kind, cannot be had here, and what to do.

    Args:
        kind: the kind; None for every kind.
        unsafe: what runs programs without a sandbox.
    """
    asked = KINDS if kind is None else (kind,)
    reasons = "; ".join(f"{name}: {_problem(name)}" for name in asked)
    return (
        f"there is no sandbox to run a program in ({reasons}); install bubblewrap "
        "(apt install bubblewrap, dnf install bubblewrap), or use Linux 5.13 or newer with "
        f"Landlock switched on; {unsafe} runs programs without a sandbox"
    )


def sandbox_facts() -> dict[str, str]:
    """The kind that is used on this machine, and how it bounds what one program takes."""
    kind = sandbox_kind()
    if kind is None:
        return {"kind": f"none ({'; '.join(f'{name}: {_problem(name)}' for name in KINDS)})"}
    limits, asked = Limits(), _trial(kind)[1]
    in_memory = kind == "bubblewrap"
    on_disk = f"{_STOPPED} the working directory is on the disk of the host"
    in_bytes = f"{_STOPPED} bubblewrap bounds a file system in bytes only"
    old = "this kernel is older than Linux 5.5"
    counted = f"{_STOPPED} {'another filter decides on system calls here' if can_ask() else old}"
    return {
        "kind": kind,
        "disk": f"{limits.folder_bytes // MEBIBYTE} MiB, {_REFUSED if in_memory else on_disk}",
        "files": f"{limits.folder_entries}, {in_bytes if in_memory else on_disk}",
        "threads": f"{limits.threads}, {_REFUSED if asked else counted}",
    }


def run_program(
    code: str, limits: Limits, kind: Kind | None, packages: tuple[str, ...] = ()
) -> Finished:
    """Run a program to its end, or to the first limit that it passes.

    Args:
        code: Python source.
        limits: what it may use.
        kind: the sandbox; None for none, which leaves the limits and, on Linux, the filter.
        packages: installed packages that it may import.

    Raises:
        LatentMASError: when a package is missing or the sandbox could not be set up; then no
            line of `code` ran.
    """
    token = secrets.token_hex(16)
    found = find_packages(packages)
    with _place(kind, limits, found) as place:
        order = _order(place, limits, token) | found.order()
        try:
            done = watch(
                [*place.prefix, *_interpreter_command()],
                json.dumps(order).encode() + b"\n" + code.encode("utf-8", "surrogatepass"),
                environment=_environment(str(place.work)),
                folder=place.folder,
                inherit=place.inherit,
                seconds=limits.seconds,
                output_bytes=limits.output_bytes + len(token),
                supervisor=place.supervisor,
            )
        except OSError as error:
            raise LatentMASError(f"the interpreter cannot be started: {error}") from error
    started = done.stdout.startswith(token.encode())
    if not started and done.stopped is None:
        reason = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise LatentMASError(f"the sandbox could not be set up: {reason or done.code}")
    done.stdout = done.stdout[len(token) :] if started else b""
    return done


@contextlib.contextmanager
def _place(kind: Kind | None, limits: Limits, packages: Packages) -> Iterator[_Place]:
    if kind == "bubblewrap":
        program = find_bubblewrap()
        if program is None:
            raise LatentMASError("there is no program bwrap on PATH")
        with supervise(limits, folder=None) as supervisor:
            prefix = bubblewrap(
                program,
                interpreter(),
                packages=(*packages.paths, *packages.libraries),
                size=limits.folder_bytes,
                info=supervisor.info,
            )
            channels = (supervisor.control, supervisor.info)
            yield _Place(supervisor, WORK, Path("/"), channels, prefix=tuple(prefix))
        return
    with (
        work_folder() as folder,
        supervise(limits, folder=folder.fd) as supervisor,
        _ruleset(kind, folder.path, packages) as ruleset,
    ):
        yield _Place(
            supervisor,
            work=folder.path,
            folder=folder.path,
            inherit=(supervisor.control, *([] if ruleset is None else [ruleset])),
            ruleset=ruleset,
            parent=os.getpid(),
        )


@contextlib.contextmanager
def _ruleset(kind: Kind | None, work: Path, packages: Packages) -> Iterator[int | None]:
    """File descriptor of the rules for Landlock; None without it."""
    if kind is None:
        yield None
        return
    found = interpreter()
    ruleset = landlock_ruleset(
        read=[*found.readable(), *packages.paths, *packages.libraries, *_READABLE_DEVICES],
        listed=found.trees,
        devices=_DEVICES,
        work=work,
    )
    try:
        yield ruleset
    finally:
        os.close(ruleset)


def _order(place: _Place, limits: Limits, token: str) -> dict[str, object]:
    """What `inside.py` is told."""
    calls = seccomp_filter()
    threads = thread_filter() if can_ask() else None
    seconds = math.ceil(limits.seconds) + 1
    return {
        "token": token,
        "ruleset": place.ruleset,
        "parent": place.parent,
        "control": place.supervisor.control,
        "filter": None if calls is None else calls.hex(),
        "thread_filter": None if threads is None else (threads[0], threads[1].hex()),
        "mark": PID_MARK,
        "limits": {
            "RLIMIT_AS": limits.memory_bytes,
            "RLIMIT_CPU": seconds,
            "RLIMIT_FSIZE": limits.file_bytes,
            "RLIMIT_NOFILE": limits.open_files,
            "RLIMIT_CORE": 0,
        },
    }


def _interpreter_command() -> list[str]:
    return [str(executable()), "-I", "-S", "-B", "-X", "utf8", "-c", _inside()]


@functools.cache
def _inside() -> str:
    return _INSIDE.read_text(encoding="utf-8")


def _environment(work: str) -> dict[str, str]:
    """The program's whole environment; of this process's, only where to find libraries."""
    fixed = {"LANG": "C.UTF-8", "HOME": work, "TMPDIR": work, "PATH": "", **_ONE_THREAD}
    return fixed | {key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ}


def _problem(kind: Kind) -> str | None:
    """Why a kind does not work here, or None."""
    return _trial(kind)[0]


def _trial(kind: Kind) -> tuple[str | None, bool]:
    """Why a kind does not work here, or None; and whether the kernel asks before each thread."""
    with _lock:
        return _try(kind)


@functools.cache
def _try(kind: Kind) -> tuple[str | None, bool]:
    missing = _missing(kind)
    if missing:
        return missing, False
    try:
        done = run_program(_TRIAL.format(path=str(_INSIDE)), Limits(seconds=30.0), kind)
    except (LatentMASError, OSError) as error:
        return str(error), False
    if done.stdout.strip() == b"ran":
        return None, done.asked
    said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()[-300:]
    return f"a program tried in it did not behave as it should: {said or done.stopped}", False


def _missing(kind: Kind) -> str | None:
    tests: dict[Kind, tuple[Callable[[], object], str]] = {
        "bubblewrap": (find_bubblewrap, "there is no program bwrap on PATH"),
        "landlock": (landlock_version, "this kernel has no Landlock, or it is switched off"),
    }
    present, text = tests[kind]
    if not present():
        return text
    if seccomp_filter() is None:
        return "the filter of system calls knows 64-bit x86 and ARM processors under Linux only"
    return None
