"""One verb for all loops: choose them, run them one after another, resume where they stopped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback

from latentmas.atomic import check_writable, write_text_atomically
from latentmas.errors import DataError, TrainingInterrupted, WeightsError
from latentmas.io import digest_rows, load_link_weights, read_history, save_system
from latentmas.runtime import System
from latentmas.safe_data import read_json
from latentmas.training.data import Data, TrainingRows, read_rows
from latentmas.training.loops import loops as registry
from latentmas.training.planning import Settings, Stage, TrainingPlan, plan_training
from latentmas.training.trainer.checkpoint import has_checkpoint

__all__ = ["TrainedStage", "Training", "train"]

FILE = "stages.json"
LARGEST = 2**20


@dataclass(frozen=True)
class TrainedStage:
    """What one loop did."""

    loop: str
    folder: Path
    """Its log, checkpoints, and the team after it in `team/`."""
    steps: int
    loss: float
    """Mean over the steps of this session; nan for a loop that was done before it was resumed."""
    scores: dict[str, float]
    """On `eval_rows`."""


@dataclass(frozen=True)
class Training:
    """What a whole training did."""

    team: Path
    """The saved team."""
    plan: TrainingPlan
    """Plan of the training."""
    stages: list[TrainedStage]
    """Finished stages."""


def train(
    system: System,
    rows: Data,
    *,
    output_dir: str | Path,
    eval_rows: Data | None = None,
    loops: Collection[str] | None = None,
    settings: Settings | None = None,
    resume: bool | Literal["auto"] = False,
    callbacks: Sequence[TrainerCallback] = (),
    **common: Any,
) -> Training:
    """Train a team with the loops that its graph, its links and the data call for.

    The plan is shown on stderr first, with the reason for each choice. The n-th loop works in
    `output_dir/<n>-<loop>`; the trained team is saved in `output_dir/team`. Ctrl-C saves a
    checkpoint.

    Args:
        system: System whose links are trained.
        rows: Sequence of mappings, or a JSONL file, with the graph's inputs and an answer or texts
            of the agents.
        output_dir: Folder for logs, checkpoints and teams.
        eval_rows: Held-out rows, on which each loop is evaluated at its end.
        loops: Names of the loops to run; None chooses them (`plan_training` says how).
        settings: fields of single configurations by loop: `{"outer": {"learning_rate": 1e-3}}`.
        resume: continue the training of the same team and rows in `output_dir`; `"auto"` continues
            it if there is one, for jobs that are restarted.
        callbacks: Callbacks of `transformers`, for every loop.
        **common: fields of the configurations of all loops that have them, such as `max_steps`,
            `seed`, `answer_field`, `columns` or `progress=False`, which shows nothing.

    Raises:
        DataError: a row lacks a field; or `output_dir` holds a training, or with `resume` none, or
            one of another team or other rows.
        LatentMASError: LM402, no loop is of use; LM403, a loss or gradient is not finite.
        TrainingInterrupted: Ctrl-C was pressed.
    """
    folder, data = Path(output_dir), read_rows(rows, common.get("columns"))
    main = os.environ.get("RANK", "0") == "0"  # of several processes, one writes
    check_writable(folder / FILE)
    resume = (folder / FILE).exists() if resume == "auto" else resume
    if resume:
        plan = _resumed(folder, system, data)
    else:
        plan = plan_training(
            system.plan, rows, history=system.history, loops=loops, settings=settings, **common
        )
        if main:
            _begin(folder, system, data, plan)
    if main and common.get("progress", True):
        print(plan, file=sys.stderr)
    common = {"use_cpu": all(b.device.type == "cpu" for b in system.agent_backbones.values())}
    stages = []
    for number, stage in enumerate(plan.running, start=1):
        place = folder / f"{number}-{stage.loop}"
        if resume and (place / "team" / "latentmas.json").exists():
            load_link_weights(system, place / "team")
            system.history = read_history(place / "team")
            stages.append(TrainedStage(stage.loop, place, stage.steps, float("nan"), {}))
            continue
        again = f"lm.train(system, rows, output_dir={str(folder)!r}, resume=True)"
        try:
            stages.append(_run(system, stage, place, rows, eval_rows, common, callbacks))
        except TrainingInterrupted as stop:
            raise TrainingInterrupted(stop.step, stop.checkpoint, again) from None
        if main:
            save_system(system, place / "team")
    if main:
        save_system(system, folder / "team")
    return Training(folder / "team", plan, stages)


def _run(
    system: System,
    stage: Stage,
    place: Path,
    rows: Data,
    eval_rows: Data | None,
    common: dict[str, Any],
    callbacks: Sequence[TrainerCallback],
) -> TrainedStage:
    """One loop, from its last checkpoint if it has one."""
    make, kind = registry.get(stage.loop).parts()
    config = kind(**{**common, **stage.settings, "output_dir": str(place)})
    options: dict[str, Any] = {"train_dataset": rows, "eval_dataset": eval_rows}
    trainer = make(system, config, **options, callbacks=list(callbacks))
    outcome = trainer.train(resume_from_checkpoint=has_checkpoint(place) or None)
    scores = trainer.evaluate() if eval_rows is not None else {}
    return TrainedStage(stage.loop, place, outcome.global_step, outcome.training_loss, scores)


def _begin(folder: Path, system: System, data: TrainingRows, plan: TrainingPlan) -> None:
    """Note what is trained on what, for a training that resumes.

    Raises:
        DataError: the folder holds a training.
    """
    there = sorted(path.name for path in folder.glob("[0-9]*-*") if path.is_dir())
    if (folder / FILE).exists() or there:
        raise DataError(
            f"{str(folder)!r} holds a training ({', '.join(there) or FILE}); continue it with "
            "resume=True (--resume), or give another folder"
        )
    content = _identity(system, data) | {
        "rows": plan.rows,
        "stages": list(map(asdict, plan.stages)),
    }
    write_text_atomically(folder / FILE, json.dumps(content, indent=2) + "\n")


def _resumed(folder: Path, system: System, data: TrainingRows) -> TrainingPlan:
    """The plan of a training that began in the folder.

    Raises:
        DataError: there is none, or it was of another team or other rows.
    """
    try:
        found = read_json(folder / FILE, LARGEST)
        for name, value in _identity(system, data).items():
            if found[name] != value:
                raise DataError(
                    f"cannot resume: the {name} is not the one that {str(folder)!r} was begun "
                    f"with; give the same {name}, or train into another folder without resume"
                )
        return TrainingPlan(int(found["rows"]), [Stage(**stage) for stage in found["stages"]])
    except FileNotFoundError:
        raise DataError(
            f"cannot resume: {str(folder)!r} holds no training ({FILE} is missing); train without "
            "resume (--resume)"
        ) from None
    except (KeyError, TypeError, ValueError, WeightsError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"cannot resume: {str(folder / FILE)!r} is damaged ({error!r:.200})"
        ) from error


def _identity(system: System, data: TrainingRows) -> dict[str, str]:
    return {"team": system.plan.digest, "data": digest_rows(data.plain())}
