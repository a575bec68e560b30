"""`metrics.jsonl`: the log of one training, a line for each entry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentmas.redact import get_logger

__all__ = ["MetricsLog"]

log = get_logger("latentmas.training")


class MetricsLog:
    """The log in an output folder. A folder may see several trainings; each has a log of its own.

    The newest is `metrics.jsonl`; older ones are `metrics-1.jsonl` and so on, the oldest first.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "metrics.jsonl"
        self._begun = False
        """Whether this trainer has trained."""
        self._before = False
        """Whether the file holds what this trainer logged before it trained, and nothing else."""

    def begin(self, *, goes_on: bool) -> None:
        """A training begins: the log of an earlier one is set aside.

        Args:
            goes_on: the training is resumed, so that the log is its own.
        """
        if self.path.exists() and not (goes_on or self._before):
            aside = next(
                path
                for number in range(1, 1 << 30)
                if not (path := self.path.with_stem(f"metrics-{number}")).exists()
            )
            self.path.rename(aside)
            log.info("the log of an earlier training is now %s", aside)
        self._begun, self._before = True, False

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append an entry."""
        if not self._begun and not self.path.exists():
            self._before = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
