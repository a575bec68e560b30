"""What is kept of a training: arguments, log, and what it was made with."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from transformers import TrainingArguments

from latentmas.environment import hardware, versions
from latentmas.io import digest_rows, read_history, weights_digest
from latentmas.metering import CostMeter
from latentmas.runtime import System, TrainingRecord
from latentmas.training.data import TrainingRows

__all__ = ["Recording", "plain_arguments"]

ELSEWHERE = ("output_dir", "logging_dir", "run_name", "local_rank", "hub_model_id")
"""Arguments that mean something on one machine only."""


class Recording:
    """Keeps one training's record up to date in the history of its system."""

    def __init__(
        self,
        system: System,
        loop: str,
        args: TrainingArguments,
        train_rows: TrainingRows,
        eval_rows: TrainingRows | None,
    ) -> None:
        """Begin: note what the training starts from.

        Args:
            system: System whose links are trained.
            loop: Name of the loop in the registry.
            args: Arguments of the trainer.
            train_rows: Training rows.
            eval_rows: Held-out rows.
        """
        self._system, self._loop, self._args = system, loop, args
        self._place = len(system.history)
        self._clock = time.perf_counter()
        self.meter = CostMeter().start()
        """Measures the training of this session; whoever trains stops it."""
        self._before: dict[str, Any] = {
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": 0.0,
            "links_before": weights_digest(system),
            "resumed_at": [],
        }
        self._fixed: dict[str, Any] = {
            "loop": loop,
            "plan": system.plan.digest,
            "links": [id for id in system.link_ids() if _learns(system, id)],
            **_adapters(system),
            "seed": args.seed,
            "data": _told(train_rows),
            "eval_data": None if eval_rows is None else _told(eval_rows),
            "processes": args.world_size,
            "versions": versions(),
            "hardware": hardware(),
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What holds from the beginning: loop, data, links, versions."""
        return dict(self._fixed)

    @property
    def cost_log(self) -> dict[str, float]:
        """The cost of the training so far, as entries of its log."""
        cost = self.meter.cost
        found = {"train_cpu_seconds": cost.cpu_seconds}
        if cost.peak_memory is not None:
            found["train_peak_mib"] = cost.peak_memory / 2**20
        if cost.joules is not None:
            found["train_joules"] = cost.joules
        return {name: round(value, 2) for name, value in found.items()}

    def resume(self, checkpoint: str) -> None:
        """Go on with the record that a checkpoint's folder holds, after the trainings before it."""
        history = read_history(checkpoint)
        if not history:
            return
        *earlier, last = history
        self._system.history = earlier
        self._place = len(earlier)
        told = last.manifest
        kept = {k: told[k] for k, own in self._before.items() if type(told.get(k)) is type(own)}
        self._before |= kept
        self._before["resumed_at"] = [*self._before["resumed_at"], last.manifest.get("steps")]

    def update(self, log: Sequence[Mapping[str, Any]], step: int) -> None:
        """Put the record as it is now into the system's history.

        Args:
            log: Log of the trainer.
            step: Number of finished steps.
        """
        seconds = self._before["seconds"] + time.perf_counter() - self._clock
        manifest = self._fixed | self._before
        manifest |= {"steps": step, "seconds": round(seconds, 3)}
        manifest["cost"] = self.meter.cost.to_dict()
        manifest["links_after"] = weights_digest(self._system)
        record = TrainingRecord(self._loop, plain_arguments(self._args), list(log), manifest)
        self._system.history[self._place :] = [record]


def _learns(system: System, id: str) -> bool:
    return any(weight.requires_grad for weight in system.link(id).parameters())


def _adapters(system: System) -> dict[str, Any]:
    """Adapters that learn, with their descriptions; nothing where none does."""
    found = {
        agent: adapter.lora.model_dump(mode="json")
        for agent, adapter in system.agent_adapters().items()
        if any(weight.requires_grad for weight in adapter.parameters())
    }
    return {"adapters": found} if found else {}


def _told(rows: TrainingRows) -> dict[str, Any]:
    return {"rows": len(rows), "digest": digest_rows(row for _, row in rows)}


def plain_arguments(args: TrainingArguments) -> dict[str, Any]:
    """Every argument but tokens and places on this machine."""
    return {
        name: value
        for name, value in args.to_dict().items()
        if name not in ELSEWHERE and "token" not in name.split("_")
    }
