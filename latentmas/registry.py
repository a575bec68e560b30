"""Look-up by name of link kinds, templates, backbone families and executors.

A registry knows the modules of one package (the file name is the registered name) and the entry
points of one group, and imports them only on demand. `register` adds an entry from a notebook or
a user's own file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from latentmas.errors import LatentMASError, UnknownNameError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Lazy look-up by name over a package's files, entry points and `register` calls."""

    def __init__(self, kind: str, package: str, *, also: Mapping[str, str] | None = None) -> None:
        """Describe where to look.

        Args:
            kind: Kind of entry, used in messages ("link kind").
            package: Dotted name of the package whose modules are the built-in entries; it is also
                the name of the entry-point group that other distributions use.
            also: Further built-in names → the module of the package that registers them.
        """
        self.kind, self.package = kind, package
        self._also = dict(also or {})
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers its argument under `name`.

        Raises:
            LatentMASError: The name is already registered for another entry.
        """
        if not name.isidentifier():
            raise LatentMASError(f"{self.kind} name {name!r} is not a Python identifier")

        def file(entry: T) -> T:
            home = f"{self.package}.{self._also.get(name, name)}"
            if name in self._builtin() and _origin(entry)[0] != home:
                raise LatentMASError(
                    f"{self.kind} {name!r} is built in ({home}); choose another name"
                )
            taken = self._entries.get(name)
            if taken is not None and _origin(taken) != _origin(entry):
                raise LatentMASError(
                    f"{self.kind} {name!r} is registered twice: {taken!r}, {entry!r}"
                )
            self._entries[name] = entry
            return entry

        return file

    def names(self) -> list[str]:
        """All names, sorted, without importing the entries."""
        return sorted({*self._entries, *self._builtin(), *self._entry_points()})

    def get(self, name: str) -> T:
        """The entry with that name, imported if necessary.

        Raises:
            UnknownNameError: the entry is unknown; the message suggests the closest name.
        """
        if name not in self._entries:
            self._load(name)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def _load(self, name: str) -> None:
        points = self._entry_points()
        if name in self._builtin():
            importlib.import_module(f"{self.package}.{self._also.get(name, name)}")
        elif name in points:
            loaded = points[name].load()
            self._entries.setdefault(name, loaded)
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self.names())

    def _builtin(self) -> list[str]:
        paths = importlib.import_module(self.package).__path__
        files = [
            m.name for m in pkgutil.iter_modules(paths) if not (m.ispkg or m.name.startswith("_"))
        ]
        return [*files, *self._also]

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.package)}


def _origin(entry: object) -> tuple[str, str]:
    """The place where an entry was defined, so that rerunning a file or cell can replace it."""
    return getattr(entry, "__module__", ""), getattr(entry, "__qualname__", repr(entry))
