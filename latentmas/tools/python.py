"""The tool `python`: runs a program in a sandbox and returns its output."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from latentmas.errors import DataError, LatentMASError
from latentmas.sandbox import (
    KINDS,
    MEBIBYTE,
    Finished,
    Kind,
    Limits,
    find_packages,
    refusal,
    run_program,
    sandbox_kind,
    working,
)
from latentmas.tools import Tool, register

__all__ = ["python", "python_tool"]

_DEFAULT = Limits()
_LAST = "program makes itself."  # how the description of the tool ends


@register("python")
def python(code: str) -> str:
    """Run a Python 3 program and return what it prints.

    Each call is a fresh process: nothing is kept from earlier calls. Use print() to see results.
    The standard library is there, and math, itertools, functools, fractions and statistics are
    already imported. There is no network, no keyboard input and no file but those that the
    program makes itself.

    Args:
        code: the program's source.
    """
    return _run(code, _DEFAULT, None, (), unsafe=False)


def python_tool(
    *,
    seconds: float = _DEFAULT.seconds,
    memory_bytes: int = _DEFAULT.memory_bytes,
    output_chars: int = _DEFAULT.output_chars,
    packages: Sequence[str] = (),
    kind: Kind | None = None,
    unsafe: bool = False,
) -> Tool:
    """The tool `python` with custom limits and packages.

    A program cannot start a second process and has at most 64 threads.

    Args:
        seconds: Limit in seconds, on wall-clock time and on processor time over all threads.
        memory_bytes: Limit on the address space in bytes; at least 64 MiB.
        output_chars: Number of characters of output to keep.
        packages: Installed packages that programs may import, by their pip names, such as
        `["numpy", "sympy"]`. Programs can read these packages and their requirements, but
        nothing else of the environment.
        kind: `"bubblewrap"` or `"landlock"`. None: the strongest that works.
        unsafe: Run without a sandbox if none is available. The program can then read and change
        any file that you can; the limits and, on Linux, the system call filter still apply.

    Raises:
        LatentMASError: A limit is out of range or a package is not installed. The tool itself
            raises it when called if no sandbox works, unless `unsafe` is set.
    """
    if kind is not None and kind not in KINDS:
        raise LatentMASError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    limits = Limits(seconds=seconds, memory_bytes=memory_bytes, output_chars=output_chars)
    if isinstance(packages, str):
        raise LatentMASError(f"packages must be a list of names, such as [{packages!r}]")
    names = tuple(packages)
    find_packages(names)

    def tool(code: str) -> str:
        return _run(code, limits, kind, names, unsafe=unsafe)

    tool.__name__ = tool.__qualname__ = "python"
    tool.__doc__ = _described(names)
    return tool


def _described(packages: tuple[str, ...]) -> str:
    """The tool's description for the model."""
    more = f"\n    Of the installed packages, these can be imported: {', '.join(packages)}."
    return (python.__doc__ or "").replace(_LAST, _LAST + more if packages else _LAST)


def _run(
    code: str, limits: Limits, kind: Kind | None, packages: tuple[str, ...], *, unsafe: bool
) -> str:
    if not isinstance(code, str):
        raise DataError(f"the tool 'python' takes the source of a program, not {code!r:.60}")
    found = sandbox_kind() if kind is None else working(kind)
    if found is None and not unsafe:
        raise LatentMASError(refusal(kind))
    return _report(run_program(code, limits, found, packages), limits)


def _report(done: Finished, limits: Limits) -> str:
    """The result for the model: output, errors, and the reason for stopping, in this order."""
    stdout, stderr = (data.decode("utf-8", "replace") for data in (done.stdout, done.stderr))
    cut = done.stopped == "output" or len(stdout) + len(stderr) > limits.output_chars
    # The last line of a traceback is the most informative, so the end of the errors is kept.
    stderr = stderr.rstrip()[-max(limits.output_chars // 3, limits.output_chars - len(stdout)) :]
    stdout = stdout.rstrip("\n")[: limits.output_chars - len(stderr)]
    notes = _notes(done, limits, out_of_memory=_out_of_memory(done, stderr))
    if cut:
        notes.append(f"[output cut at {limits.output_chars} characters]")
    parts = [stdout, f"[stderr]\n{stderr}" if stderr else "", *notes]
    return "\n".join(part for part in parts if part) or "[no output]"


def _notes(done: Finished, limits: Limits, *, out_of_memory: bool) -> list[str]:
    if done.stopped == "time" or done.code == 128 + signal.SIGXCPU:
        return [f"[stopped: time limit of {limits.seconds:g} s]"]
    if done.stopped == "folder":
        size = f"{limits.folder_bytes // MEBIBYTE} MiB and {limits.folder_entries} entries"
        return [f"[stopped: the working directory may hold {size}]"]
    if done.stopped == "threads":
        return [f"[stopped: limit of {limits.threads} threads]"]
    if done.stopped == "output":
        return []
    if out_of_memory:
        return [f"[stopped: memory limit of {limits.memory_bytes // MEBIBYTE} MiB]"]
    return [f"[exit code {done.code}]"] if done.code else []


def _out_of_memory(done: Finished, stderr: str) -> bool:
    last = stderr.splitlines()[-1] if stderr else ""
    return done.code != 0 and last.split(":")[0] == "MemoryError"
