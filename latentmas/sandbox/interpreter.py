"""Which files a bare Python interpreter needs, so that a sandbox can show these and no others."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentmas.errors import LatentMASError

__all__ = ["PythonInstallation", "executable", "interpreter", "libraries_of"]

# Runs in a fresh interpreter: load every extension module of the standard library and the modules
# that are named, then list the shared libraries that came along, under the names the loader looked
# for them.
_PROBE = """
import ctypes, importlib, json, pathlib, sys, sysconfig
folders, modules = json.loads(sys.argv[1])
paths = sysconfig.get_paths()
folder = sysconfig.get_config_var("DESTSHARED") or paths["platstdlib"]
own = [file.name.split(".")[0] for file in sorted(pathlib.Path(folder).glob("*.so"))]
own = [name for name in own if not name.startswith(("_test", "_tkinter", "xx", "_xx"))]
sys.path += folders
for name in own + modules:
    try:
        importlib.import_module(name)
    except BaseException:
        pass
try:
    ctypes.CDLL("libgcc_s.so.1")  # the C library loads it when a thread ends
except OSError:
    pass
class Info(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("name", ctypes.c_char_p)]
found = []
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Info), ctypes.c_size_t, ctypes.c_void_p)
def note(info, size, data):
    found.append((info.contents.name or b"").decode())
    return 0
ctypes.CDLL(None).dl_iterate_phdr(note, None)
trees = [paths["stdlib"], paths["platstdlib"], folder]
print(json.dumps({"libraries": found, "trees": trees}))
"""
_LOADER_FILES = ("/etc/ld.so.cache",)
_NOT_STANDARD = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class PythonInstallation:
    """A Python installation without what was installed into it."""

    executable: Path
    """The program itself, not a link to it."""
    trees: tuple[Path, ...]
    """Directories of the standard library, none inside another."""
    libraries: tuple[Path, ...]
    """Shared libraries and what the loader reads, under the names the loader uses."""

    def hidden(self) -> list[Path]:
        """Directories inside the trees that hold installed packages."""
        places = (tree / name for tree in self.trees for name in _NOT_STANDARD)
        return [place for place in places if place.is_dir()]

    def readable(self) -> list[Path]:
        """Files, and directories with all below, that add up to the installation."""
        hidden = set(self.hidden())
        inside = [path for tree in self.trees for path in tree.iterdir() if path not in hidden]
        return [self.executable, *inside, *self.libraries]


def executable() -> Path:
    """The interpreter that runs this, outside of its virtual environment.

    Raises:
        LatentMASError: when Python is embedded in another program.
    """
    path = getattr(sys, "_base_executable", None) or sys.executable
    if not path:
        raise LatentMASError("the tool 'python' needs sys.executable, which is empty here")
    return Path(path).resolve()


@functools.cache
def interpreter() -> PythonInstallation:
    """Find out once per process, by asking a fresh interpreter.

    Raises:
        LatentMASError: when it does not start or cannot say.
    """
    found = _probe([], [])
    trees = _outermost(Path(name).resolve() for name in found["trees"])
    outside = [path for path in found["libraries"] if not any(map(path.is_relative_to, trees))]
    return PythonInstallation(executable(), trees, tuple(outside))


def libraries_of(paths: Sequence[Path], modules: Sequence[str]) -> tuple[Path, ...]:
    """Shared libraries that modules load besides those of the interpreter and their own.

    Args:
        paths: files and directories that are the modules' own.
        modules: what to import, in a fresh interpreter.

    Raises:
        LatentMASError: when the interpreter does not start or cannot say.
    """
    known, trees = set(interpreter().libraries), interpreter().trees
    found = _probe([str(path.parent) for path in paths], modules)["libraries"]
    return tuple(
        path
        for path in found
        if path not in known and not any(map(path.resolve().is_relative_to, (*paths, *trees)))
    )


def _probe(folders: Sequence[str], modules: Sequence[str]) -> dict[str, list[Path]]:
    """Ask a fresh interpreter for its `trees` and, once it has the modules, its `libraries`."""
    program = executable()
    asked = json.dumps([list(dict.fromkeys(folders)), list(modules)])
    command = [str(program), "-I", "-S", "-B", "-X", "utf8", "-c", _PROBE, asked]
    kept = {key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ}
    done = subprocess.run(
        command, env=kept, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        reason = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise LatentMASError(f"{program} cannot say which files it needs: {reason}") from error
    names = [name for name in found["libraries"] if name.startswith("/")]
    libraries = [Path(name) for name in (*names, *_LOADER_FILES) if Path(name).is_file()]
    return {
        "libraries": list(dict.fromkeys(libraries)),
        "trees": [Path(name) for name in found["trees"]],
    }


def _outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Directories that exist, without those inside another."""
    kept: list[Path] = []
    for path in sorted({path for path in paths if path.is_dir()}):
        if not any(map(path.is_relative_to, kept)):
            kept.append(path)
    return tuple(kept)
