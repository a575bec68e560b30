"""Commands that train links: a team with the loops that suit it, or one loop alone."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from latentmas.atomic import check_writable
from latentmas.cli.support.console import emit, emit_json, note
from latentmas.cli.support.options import pairs
from latentmas.cli.support.placing import spreads
from latentmas.cli.support.team import open_plan, open_team
from latentmas.cli.support.training.data import answer_field_of, check_agents, read_training
from latentmas.cli.support.training.flags import make_config, split_sets
from latentmas.cli.support.training.group import TrainGroup
from latentmas.errors import LatentMASError, TrainingInterrupted
from latentmas.viz import training_report

if TYPE_CHECKING:
    from latentmas.runtime import System, TrainingRecord

__all__ = ["Training", "train_loop", "train_team", "training"]


def train_loop(
    name: str,
    *,
    team: Path,
    data: str,
    output_dir: Path,
    eval_data: str | None,
    columns: str | None,
    set_: list[str] | None,
    device: str,
    resume: bool,
    json: bool,
    dry_run: bool = False,
    **given: Any,
) -> None:
    """Train with one loop, save the team and report."""
    rows = read_training(data, columns)
    eval_rows = None if eval_data is None else read_training(eval_data, columns)
    given["answer_field"] = answer_field_of(rows, given["answer_field"])
    folder = _free(output_dir / "team")
    from latentmas.training.loops import loops

    make, kind = loops.get(name).parts()
    flags = {**_fields(**given), "output_dir": str(output_dir)}
    use_cpu = device.startswith("cpu") and not spreads()
    config = make_config(kind, flags, set_ or [], {"use_cpu": use_cpu})
    system = open_team(team, device=device, seed=given["seed"] or 0, answers=False)
    check_agents(rows, [agent.name for agent in system.plan.graph.agents], given.get("target"))
    trainer: Any = make(system, config, train_dataset=rows, eval_dataset=eval_rows)
    if dry_run:
        found = trainer.dry_run()
        emit_json(asdict(found)) if json else emit(str(found))
        return
    with _resumable():
        outcome = trainer.train(resume_from_checkpoint=resume or None)
    scores = trainer.evaluate() if eval_rows is not None else {}
    system.save_pretrained(folder)
    note(f"curves: {training_report(output_dir)}")
    trained = [id for id in system.link_ids() if _learns(system, id)]
    adapters = [a for a, one in system.agent_adapters().items() if _any_learns(one)]
    if json:
        numbers = {"steps": outcome.global_step, "train_loss": outcome.training_loss}
        scores_of = {"metrics": outcome.metrics, "eval": scores}
        learned = {"links": trained} | ({"adapters": adapters} if adapters else {})
        emit_json({"team": str(folder)} | learned | numbers | scores_of)
        return
    count = f"{len(trained)} link{'s' if len(trained) != 1 else ''}"
    if adapters:
        count += f" and {len(adapters)} adapter{'s' if len(adapters) != 1 else ''}"
    note(f"trained {count} in {outcome.global_step} steps, loss {outcome.training_loss:.4g}")
    _say_next(folder)


def train_team(
    *,
    team: Path,
    data: str,
    output_dir: Path,
    eval_data: str | None,
    columns: str | None,
    loop: list[str] | None,
    set_: list[str] | None,
    device: str,
    resume: bool,
    dry_run: bool,
    json: bool,
    **given: Any,
) -> None:
    """Choose the loops, run them, save the team and report."""
    rows = read_training(data, columns)
    eval_rows = None if eval_data is None else read_training(eval_data, columns)
    given["answer_field"] = answer_field_of(rows, given["answer_field"])
    from latentmas.training import plan_training, train

    options: dict[str, Any] = {"loops": loop or None, **split_sets(set_ or [])}
    options |= {key: value for key, value in _fields(**given).items() if value is not None}
    if dry_run:
        declared = open_plan(team)
        check_agents(rows, [agent.name for agent in declared.graph.agents], given.get("target"))
        plan = plan_training(declared, rows, history=_history(team), **options)
        emit_json(asdict(plan)) if json else emit(str(plan))
        return
    folder = _free(output_dir / "team")
    system = open_team(team, device=device, seed=given["seed"] or 0, answers=False)
    check_agents(rows, [agent.name for agent in system.plan.graph.agents], given.get("target"))
    with _resumable():
        done = train(
            system,
            rows,
            output_dir=output_dir,
            eval_rows=eval_rows,
            resume=resume,
            **options,
        )
    note(f"curves: {training_report(output_dir)}")
    if json:
        emit_json({"team": str(folder), "stages": [_told(stage) for stage in done.stages]})
        return
    _say_next(folder)


class Training(TrainGroup):
    """The group `latentmas train`."""

    run_loop, run_team = staticmethod(train_loop), staticmethod(train_team)


training = typer.Typer(
    cls=Training,
    help="Train the links of a team, with the loops that suit it or with one loop.",
    no_args_is_help=True,
)


@training.callback()
def _train_options() -> None:
    """Nothing of its own: a group without a command needs a callback."""


def _fields(
    *,
    steps: int | None,
    epochs: float | None,
    batch_size: int | None,
    learning_rate: float | None,
    answer_field: str | None,
    seed: int | None,
    target: list[str] | None = None,
    links: list[str] | None = None,
    train_adapters: list[str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Flags as fields of configurations; None for those that are not given."""
    return {
        "max_steps": steps,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "learning_rate": learning_rate,
        "answer_field": answer_field,
        "seed": seed,
        "targets": pairs("--target", target or []) or None,
        "train_links": _chosen(links, none=False),
        "train_adapters": _chosen(train_adapters, all=True),
        **more,
    }


def _chosen(names: list[str] | None, **alone: bool) -> Any:
    """The value of a repeated option; `alone` says what single words stand for."""
    if not names or len(names) > 1:
        return names or None
    return alone.get(names[0], names[0])


def _history(team: Path) -> list[TrainingRecord]:
    """Earlier trainings of a saved team; a graph file has none."""
    if not (team / "latentmas.json").exists():
        return []
    from latentmas.io import read_history

    return read_history(team)


@contextmanager
def _resumable() -> Iterator[None]:
    """Ctrl-C prints the command that resumes."""
    try:
        yield
    except TrainingInterrupted as stop:
        words = [word for word in sys.argv[1:] if word != "--resume"]
        command = f"latentmas {shlex.join(words)} --resume"
        raise TrainingInterrupted(stop.step, stop.checkpoint, command) from None


def _told(stage: Any) -> dict[str, Any]:
    return {**asdict(stage), "folder": str(stage.folder)}


def _learns(system: System, id: str) -> bool:
    return _any_learns(system.link(id))


def _any_learns(module: Any) -> bool:
    return any(weight.requires_grad for weight in module.parameters())


def _say_next(folder: Path) -> None:
    note(f'next: latentmas run {shlex.quote(str(folder))} "…"')
    emit(str(folder))


def _free(folder: Path) -> Path:
    """The folder, when a team can be saved there: better to know before the training.

    Raises:
        LatentMASError: it contains something else, or cannot be written.
    """
    check_writable(folder / "latentmas.json")
    with suppress(FileNotFoundError):
        if not (folder / "latentmas.json").exists() and any(folder.iterdir()):
            raise LatentMASError(f"{str(folder)!r} contains something other than a saved team")
    return folder
