"""A user's own Python files, imported before a command so that what they register is known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from latentmas.errors import LatentMASError

__all__ = ["import_plugin", "imported_plugins"]

_imported: list[Path] = []


def imported_plugins() -> list[Path]:
    """The files that have been imported, in their order."""
    return list(_imported)


def import_plugin(path: Path) -> None:
    """Import a Python file.

    Raises:
        LatentMASError: it is not there, or raises; the cause is attached.
    """
    if not path.is_file():
        raise LatentMASError(f"--plugin {str(path)!r}: the file does not exist")
    name = f"latentmas_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LatentMASError(f"--plugin {str(path)!r}: not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        where = _line(error, path)
        raise LatentMASError(
            f"--plugin {str(path)!r} fails{where}: {type(error).__name__}: {error}"
        ) from error
    if path not in _imported:
        _imported.append(path)


def _line(error: Exception, path: Path) -> str:
    """The last line of the plugin itself that the error passed through."""
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f" in line {lines[-1]}" if lines else ""
