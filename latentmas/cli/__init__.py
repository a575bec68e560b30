"""The command line. Help texts and light commands cost no import of torch."""

from __future__ import annotations

import io
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line on `sys.argv`; the console script `latentmas`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a poor encoding is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    from latentmas.cli.app import app

    app(prog_name="latentmas")
