"""The command line of bubblewrap: new name spaces that hold a Python installation and no more."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from latentmas.sandbox.interpreter import PythonInstallation

__all__ = ["WORK", "bubblewrap", "find_bubblewrap"]

WORK = Path("/latentmas-program")
"""The working directory, as the program sees it; on top of nothing that is shown to it."""

_FIXED = (
    "--unshare-all",  # users, processes, network, mounts, System V memory, host name, cgroups
    "--die-with-parent",
    "--new-session",
    *("--cap-drop", "ALL"),
)
_DEVICES = ("/dev/null", "/dev/urandom")


def find_bubblewrap() -> str | None:
    """Path of the program, or None; whether it works here is another question."""
    return shutil.which("bwrap")


def bubblewrap(
    program: str, interpreter: PythonInstallation, *, packages: Sequence[Path], size: int, info: int
) -> list[str]:
    """What to put before the interpreter's own command line.

    Args:
        program: path of `bwrap`.
        interpreter: shown read-only, without the packages that were installed into it.
        packages: files and directories of installed packages that are shown, read-only.
        size: bytes of the working directory, the only place that may be written. It lies in
            memory and is gone with the sandbox, so nothing of it is ever on the host's disk.
        info: descriptor on which bubblewrap says which process it has started.
    """
    command = [program, *_FIXED, "--info-fd", str(info)]
    for tree in interpreter.trees:
        command += ["--ro-bind", str(tree), str(tree)]
    hidden = [str(place) for place in interpreter.hidden()]
    for place in hidden:
        command += ["--tmpfs", place]
    for package in packages:
        command += ["--ro-bind", str(package), str(package)]
    for place in hidden:
        command += ["--remount-ro", place]
    for file in (interpreter.executable, *interpreter.libraries):
        command += ["--ro-bind", str(file), str(file)]
    for device in _DEVICES:
        command += ["--dev-bind", device, device]
    command += ["--size", str(size), "--tmpfs", str(WORK)]
    command += ["--remount-ro", "/", "--chdir", str(WORK)]
    return [*command, "--"]
