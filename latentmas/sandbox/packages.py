"""Installed packages that a program may import, found through their metadata."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import all_suffixes
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from latentmas.errors import LatentMASError
from latentmas.sandbox.interpreter import libraries_of

__all__ = ["Packages", "find_packages"]


@dataclass(frozen=True)
class Packages:
    """What a sandbox must show, and what can then be imported."""

    paths: tuple[Path, ...] = ()
    """Files and directories, with all below."""
    modules: tuple[tuple[str, str], ...] = ()
    """Name of each module and its file; of one without an `__init__.py` the directory and a `/`."""
    libraries: tuple[Path, ...] = ()
    """Shared libraries elsewhere that they load."""

    def order(self) -> dict[str, object]:
        """What `inside.py` is told."""
        metadata = [str(path) for path in self.paths if path.name.endswith(".dist-info")]
        return {"modules": dict(self.modules), "metadata": metadata}


@functools.cache
def find_packages(names: tuple[str, ...]) -> Packages:
    """Packages of this environment, with all that they require.

    Args:
        names: as pip knows them.

    Raises:
        LatentMASError: when one is not installed, or is installed from a source folder.
    """
    if not names:
        return Packages()
    found = list(_with_requirements(names))
    paths = tuple(dict.fromkeys(path for package in found for path in _paths(package)))
    modules = tuple(module for path in paths for module in _modules(path))
    return Packages(paths, modules, libraries_of(paths, [name for name, _ in modules]))


def _with_requirements(names: tuple[str, ...]) -> Iterator[Distribution]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pending, seen = list(names), set()
    while pending:
        name = pending.pop()
        if canonicalize_name(name) in seen:
            continue
        seen.add(canonicalize_name(name))
        try:
            package = distribution(name)
        except (PackageNotFoundError, ValueError) as error:
            raise LatentMASError(
                f"the sandbox cannot offer the package {name!r}, because it is not "
                f"installed in this environment; install it with: pip install {name}"
            ) from error
        yield package
        required = map(Requirement, package.requires or ())
        pending += [
            need.name
            for need in required
            if need.marker is None or need.marker.evaluate({"extra": ""})
        ]


def _paths(package: Distribution) -> list[Path]:
    """The outermost files and directories of a package."""
    parts = [file.parts for file in package.files or ()]
    tops = sorted({part[0] for part in parts if part[0] not in ("..", "/", "__pycache__")})
    found = [Path(str(package.locate_file(top))).resolve() for top in tops]
    if not any(True for path in found for _ in _modules(path)):
        name = package.metadata["Name"]
        raise LatentMASError(
            f"the sandbox cannot offer the package {name!r}, because its metadata lists no "
            f"module; reinstall it, and not in editable mode: pip install --force-reinstall {name}"
        )
    return found


def _modules(path: Path) -> Iterator[tuple[str, str]]:
    """The module that a file or directory is, if it is one."""
    start = path / "__init__.py"
    if path.is_dir() and path.name.isidentifier():
        yield path.name, str(start) if start.is_file() else f"{path}{os.sep}"
    elif path.is_file() and path.name.endswith(tuple(all_suffixes())):
        yield path.name.split(".")[0], str(path)
