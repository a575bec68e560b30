"""The engine `torchrun`: each process of a launcher answers for a share of the rows.

Processes say nothing to each other. Each writes a part of its own beside the results file; the
process that ends last joins the parts. A process that dies costs the rows that it was generating,
and the same command with `--resume` runs what is missing, with as many processes as you like.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentmas.errors import DataError, LatentMASError
from latentmas.evaluation.engines import Engine, engines
from latentmas.evaluation.engines.local import run_here
from latentmas.evaluation.runner import Work

if TYPE_CHECKING:
    from latentmas.evaluation.scoring import Evaluation

if sys.platform != "win32":
    import fcntl

__all__ = ["TorchrunEngine"]


@engines.register("torchrun")
class TorchrunEngine(Engine):
    """Runs this process's share of the rows.

    Example:
        `torchrun --nproc-per-node 4 -m latentmas eval TEAM --data rows.jsonl -o results.jsonl`
    """

    name = "torchrun"
    """Registered name."""

    def __init__(self, *, rank: int | None = None, world_size: int | None = None) -> None:
        """Take the place of this process among others.

        Args:
            rank: number of this process, from 0. Default: the variable RANK.
            world_size: number of processes. Default: the variable WORLD_SIZE.

        Raises:
            LatentMASError: the numbers are not given, or do not fit together.
        """
        self.rank = _number("RANK", rank)
        """Number of this process, from 0."""
        self.world_size = _number("WORLD_SIZE", world_size)
        """Number of processes."""
        self._rows = 0
        if not 0 <= self.rank < self.world_size:
            raise LatentMASError(
                f"rank {self.rank} of {self.world_size} processes does not exist; ranks are 0 to "
                f"{self.world_size - 1}"
            )

    def place(self, device: str) -> str:
        """`"cuda"` becomes the GPU of this process on its machine (LOCAL_RANK)."""
        return f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}" if device == "cuda" else device

    def share(self, rows: int, groups: Sequence[Sequence[int]]) -> list[int]:
        """Every `world_size`-th row, or every `world_size`-th group."""
        self._rows = rows
        what, count = ("batches of the control shuffled", len(groups)) if groups else ("rows", rows)
        if count < self.world_size:
            raise DataError(
                f"{count} {what} cannot be divided among {self.world_size} processes; start at "
                f"most {count}"
            )
        if not groups:
            return list(range(self.rank, rows, self.world_size))
        return sorted(n for group in groups[self.rank :: self.world_size] for n in group)

    def part(self, output: Path | None, *, resume: bool) -> tuple[Path, list[Path]]:
        """`results.jsonl.part-1-of-4`, and whatever earlier processes have left.

        A launcher that starts its processes again after a failure continues the evaluation.
        """
        if output is None:
            raise LatentMASError("engine 'torchrun' needs output, the file that its parts join to")
        own = self._own(output)
        others = [path for path in (output, *_parts(output)) if path != own and path.is_file()]
        if resume or int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0):
            return own, others
        old = [p for p in [own, *others] if _is_old(p, output, self.world_size, own)]
        if old:
            raise DataError(
                f"{str(old[0])!r} holds rows of an earlier evaluation; continue it with resume, "
                "name another output, or delete it"
            )
        return own, []

    def _own(self, output: Path) -> Path:
        return output.with_name(f"{output.name}.part-{self.rank}-of-{self.world_size}")

    def run(self, works: Iterable[Work]) -> None:
        """Run this process's rows, one job after another."""
        run_here(works)

    def join(self, output: Path | None) -> Evaluation | None:
        """Join all parts, if no other process is at work and no row is missing."""
        from latentmas.evaluation.merge import merge_results, read_evaluation

        assert output is not None
        parts = _parts(output)
        if any(_is_open(path) for path in parts):
            return None
        # This process's part holds all systems in their order, so that it comes first.
        files = sorted([*parts, *_filled(output)], key=lambda path: path != self._own(output))
        joined = output.with_name(f"{output.name}.joined-by-{self.rank}")
        joined.unlink(missing_ok=True)
        try:
            if merge_results(files, joined).rows < self._rows:
                raise DataError("the last rows are missing")
            joined.replace(output)
        except (DataError, OSError):  # rows are missing, or another process has just joined them
            joined.unlink(missing_ok=True)
            return None
        for path in parts:
            path.unlink(missing_ok=True)
        return read_evaluation(output)


def _number(variable: str, given: int | None) -> int:
    text = os.environ.get(variable) if given is None else str(given)
    if text is None or not text.isdecimal():
        raise LatentMASError(
            f"engine 'torchrun': {variable} is {text!r}; start the command with a launcher such as "
            "`torchrun --nproc-per-node 4 -m latentmas eval …`"
        )
    return int(text)


def _parts(output: Path) -> list[Path]:
    """Parts of a results file, those of earlier numbers of processes included."""
    name = re.compile(re.escape(output.name) + r"\.part-\d+-of-\d+")
    if not output.parent.is_dir():
        return []
    return sorted(path for path in output.parent.iterdir() if name.fullmatch(path.name))


def _filled(path: Path) -> list[Path]:
    """The file, if it holds rows."""
    return [path] if path.is_file() and path.stat().st_size else []


def _is_old(path: Path, output: Path, world_size: int, own: Path) -> bool:
    """Whether a file with rows cannot be the work of a process that was started with this one."""
    beside = path not in (own, output) and path.name.endswith(f"-of-{world_size}")
    return not beside and bool(_filled(path))


def _is_open(path: Path) -> bool:
    """Whether a process writes to a part."""
    if sys.platform == "win32":
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    return False
