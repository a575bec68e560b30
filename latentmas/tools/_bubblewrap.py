"""The command line of bubblewrap: new name spaces that hold a Python installation and no more."""

from __future__ import annotations

import shutil
from pathlib import Path

from latentmas.tools._interpreter import Interpreter

__all__ = ["WORK", "bubblewrap", "find_bubblewrap"]

WORK = Path("/work")
"""The working directory, as the program sees it."""

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


def bubblewrap(program: str, interpreter: Interpreter, folder: Path) -> list[str]:
    """What to put before the interpreter's own command line.

    Args:
        program: path of `bwrap`.
        interpreter: shown read-only, without the packages that were installed into it.
        folder: appears as `/work`, the only place that may be written.
    """
    command = [program, *_FIXED]
    for tree in interpreter.trees:
        command += ["--ro-bind", str(tree), str(tree)]
    for hidden in interpreter.hidden():
        command += ["--tmpfs", str(hidden), "--remount-ro", str(hidden)]
    for file in (interpreter.executable, *interpreter.libraries):
        command += ["--ro-bind", str(file), str(file)]
    for device in _DEVICES:
        command += ["--dev-bind", device, device]
    command += ["--bind", str(folder), str(WORK), "--remount-ro", "/", "--chdir", str(WORK)]
    return [*command, "--"]
