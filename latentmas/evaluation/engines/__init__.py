"""Engines by name: ways to run the rows of an evaluation, in this process or in many.

An engine is a file in this package, an entry point in the group `latentmas.evaluation.engines`, or
a class registered with `engines.register`. All engines run the batches that one process would
make, and keep the same rows under the same keys.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from latentmas.errors import LatentMASError, unexpected_keyword
from latentmas.evaluation.runner import Work
from latentmas.registry import Registry

if TYPE_CHECKING:
    from latentmas.evaluation.scoring import Evaluation

__all__ = ["Engine", "engines", "open_engine"]


class Engine(ABC):
    """A way to run the rows of an evaluation. Options are keyword arguments of its constructor."""

    name: str = ""
    """Registered name."""
    options: Mapping[str, Any] = MappingProxyType({})
    """Options that it was made with by name."""
    runs_whole: bool = False
    """Whether it can run all rows at once in this process, for a manifest or a report."""

    @abstractmethod
    def run(self, works: Iterable[Work]) -> None:
        """Run the tasks of some jobs, and hand the end of each row to its work.

        Each work is made when it is asked for. Rows run between `as_one_run(…)`, which checks that
        all of them have come.

        Args:
            works: the jobs with missing rows.

        Raises:
            LatentMASError: a row cannot run and errors are not kept, or the engine cannot run.
        """

    def place(self, device: str) -> str:
        """Device of this process's copy of the team.

        Args:
            device: device that the user asked for.
        """
        return device

    def share(self, rows: int, groups: Sequence[Sequence[int]]) -> list[int] | None:
        """Rows that this process answers for; None for all.

        Args:
            rows: number of rows.
            groups: batches that must stay together, if there are any.

        Raises:
            DataError: the rows cannot be divided.
        """
        return None

    def part(self, output: Path | None, *, resume: bool) -> tuple[Path | None, list[Path]]:
        """The file that this process writes, and others that may hold rows of it.

        Args:
            output: results file that the user named.
            resume: whether the evaluation is continued.

        Raises:
            DataError: the files belong to an earlier evaluation, which is not continued.
        """
        return output, []

    def join(self, output: Path | None) -> Evaluation | None:
        """The evaluation of all rows, once all processes have finished; None before that.

        Args:
            output: results file that the user named, to be completed.
        """
        return None


engines: Registry[type[Engine]] = Registry("engine", "latentmas.evaluation.engines")
"""Every engine by name."""


def open_engine(engine: str | Engine, **options: Any) -> Engine:
    """An engine to use, from its name or itself.

    Args:
        engine: registered name, such as `"ray"`, or an engine.
        **options: options of a named engine.

    Raises:
        UnknownNameError: the name is unknown.
        TypeError: the engine has no such option, or has been made already.
        LatentMASError: it is neither a name nor an engine.
    """
    if isinstance(engine, Engine):
        if options:
            raise TypeError(f"options {', '.join(options)} belong to an engine given by name")
        return engine
    if not isinstance(engine, str):
        raise LatentMASError(
            f"engine is a {type(engine).__name__}; give a name such as 'ray', or an Engine"
        )
    kind = engines.get(engine)
    known = list(inspect.signature(kind).parameters)
    for option in options:
        if option not in known:
            raise unexpected_keyword(f"engine {engine!r}", option, known)
    made = kind(**options)
    made.name, made.options = engine, dict(options)
    return made
