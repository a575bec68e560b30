"""Commands that train links: train inner, train edges, train rollout, train outer."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentmas.cli._config import make_config
from latentmas.cli._console import emit, emit_json, note
from latentmas.cli._data import read_rows
from latentmas.cli._options import Device, Json, Rounds, Team, pairs
from latentmas.cli._progress import train_progress
from latentmas.cli._team import open_team
from latentmas.errors import LatentMASError
from latentmas.report import training_report
from latentmas.spec import check_writable

if TYPE_CHECKING:
    from latentmas.runtime import System

__all__ = ["edges", "inner", "outer", "rollout"]

Data = Annotated[Path, typer.Option("--data", help="JSONL file of training rows.")]
OutputDir = Annotated[
    Path, typer.Option(file_okay=False, help="Folder for checkpoints and the trained team.")
]
EvalData = Annotated[Path | None, typer.Option(help="JSONL file to evaluate on at the end.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Optimiser steps; goes before --epochs.")]
Epochs = Annotated[float | None, typer.Option(help="Passes over the data.")]
Batch = Annotated[int | None, typer.Option("--batch-size", min=1, help="Rows of a batch.")]
Rate = Annotated[float | None, typer.Option(help="Peak learning rate.")]
Links = Annotated[
    list[str] | None,
    typer.Option("--links", help="outer, inner, all, or the id of a link; may be repeated."),
]
Answer = Annotated[str | None, typer.Option(help="Field that holds the answer.")]
Seed = Annotated[int | None, typer.Option(help="Of the data's order, and of untrained links.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any field of the configuration as key=value; may be repeated."),
]


def inner(
    team: Team,
    data: Data,
    output_dir: OutputDir,
    eval_data: EvalData = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="An agent's own text as agent=field; may be repeated."),
    ] = None,
    steps: Steps = None,
    epochs: Epochs = None,
    batch_size: Batch = None,
    learning_rate: Rate = None,
    answer_field: Answer = None,
    seed: Seed = None,
    device: Device = "cpu",
    resume: Resume = False,
    set_: Sets = None,
    json: Json = False,
) -> None:
    """Train inner links: an agent's states become its own input embeddings."""
    given = _common(output_dir, steps, epochs, batch_size, learning_rate, answer_field, seed)
    given["targets"] = pairs("--target", target or []) or None
    paths = (team, data, eval_data, output_dir)
    _train("Inner", *paths, given, set_ or [], device=device, resume=resume, json=json)


def edges(
    team: Team,
    data: Data,
    output_dir: OutputDir,
    eval_data: EvalData = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", help="An agent's own text as agent=field; without it the twin speaks."
        ),
    ] = None,
    links: Links = None,
    steps: Steps = None,
    epochs: Epochs = None,
    batch_size: Batch = None,
    learning_rate: Rate = None,
    answer_field: Answer = None,
    seed: Seed = None,
    device: Device = "cpu",
    resume: Resume = False,
    set_: Sets = None,
    json: Json = False,
) -> None:
    """Train edges, each by itself: a message becomes what its sender would have said in words."""
    given = _common(output_dir, steps, epochs, batch_size, learning_rate, answer_field, seed)
    given["targets"] = pairs("--target", target or []) or None
    given["train_links"] = links[0] if links and len(links) == 1 else links or None
    paths = (team, data, eval_data, output_dir)
    _train("Edge", *paths, given, set_ or [], device=device, resume=resume, json=json)


def rollout(
    team: Team,
    data: Data,
    output_dir: OutputDir,
    eval_data: EvalData = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", help="An agent's own text as agent=field; without it the twin speaks."
        ),
    ] = None,
    links: Links = None,
    passes: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of parallel passes over the links' own outputs."),
    ] = None,
    steps: Steps = None,
    epochs: Epochs = None,
    batch_size: Batch = None,
    learning_rate: Rate = None,
    answer_field: Answer = None,
    seed: Seed = None,
    device: Device = "cpu",
    resume: Resume = False,
    set_: Sets = None,
    json: Json = False,
) -> None:
    """Train links on their own outputs, so that latent steps stay on course."""
    given = _common(output_dir, steps, epochs, batch_size, learning_rate, answer_field, seed)
    given |= {"targets": pairs("--target", target or []) or None, "passes": passes}
    given["train_links"] = links[0] if links and len(links) == 1 else links or None
    paths = (team, data, eval_data, output_dir)
    _train("Rollout", *paths, given, set_ or [], device=device, resume=resume, json=json)


def outer(
    team: Team,
    data: Data,
    output_dir: OutputDir,
    eval_data: EvalData = None,
    rounds: Rounds = None,
    recipe: Annotated[str | None, typer.Option(help="on_policy, or released.")] = None,
    links: Links = None,
    steps: Steps = None,
    epochs: Epochs = None,
    batch_size: Batch = None,
    learning_rate: Rate = None,
    answer_field: Answer = None,
    seed: Seed = None,
    device: Device = "cpu",
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="One step: what it takes, beside the estimate.")
    ] = False,
    set_: Sets = None,
    json: Json = False,
) -> None:
    """Train links from the final answer, through all rounds."""
    given = _common(output_dir, steps, epochs, batch_size, learning_rate, answer_field, seed)
    given |= {"rounds": rounds, "recipe": recipe}
    given["train_links"] = links[0] if links and len(links) == 1 else links or None
    paths = (team, data, eval_data, output_dir)
    how: dict[str, Any] = {"device": device, "resume": resume, "json": json, "dry": dry_run}
    _train("Outer", *paths, given, set_ or [], **how)


def _common(
    output_dir: Path,
    steps: int | None,
    epochs: float | None,
    batch_size: int | None,
    learning_rate: float | None,
    answer_field: str | None,
    seed: int | None,
) -> dict[str, Any]:
    """Flags of all loops as fields of their configurations."""
    return {
        "output_dir": str(output_dir),
        "max_steps": steps,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "learning_rate": learning_rate,
        "answer_field": answer_field,
        "seed": seed,
    }


def _train(
    loop: str,
    team: Path,
    data: Path,
    eval_data: Path | None,
    output_dir: Path,
    given: dict[str, Any],
    sets: list[str],
    *,
    device: str,
    resume: bool,
    json: bool,
    dry: bool = False,
) -> None:
    """Train with one of the loops, save the team and report."""
    rows = read_rows(data).rows
    eval_rows = None if eval_data is None else read_rows(eval_data).rows
    folder = _free(output_dir / "team")
    from latentmas import training

    trainer_class = getattr(training, f"{loop}Trainer")
    config = make_config(
        getattr(training, f"{loop}Config"), given, sets, {"use_cpu": device.startswith("cpu")}
    )
    system = open_team(team, device=device, seed=given["seed"] or 0, answers=False)
    with train_progress() as progress:
        trainer = trainer_class(
            system, config, train_dataset=rows, eval_dataset=eval_rows, callbacks=[progress]
        )
        if dry:
            _report_dry(trainer.dry_run(), json)
            return
        outcome = trainer.train(resume_from_checkpoint=resume or None)
        scores = trainer.evaluate() if eval_rows is not None else {}
    system.save_pretrained(folder)
    note(f"curves: {training_report(output_dir)}")
    _report(system, folder, outcome, scores, json)


def _report_dry(found: Any, json: bool) -> None:
    if json:
        emit_json(asdict(found))
    else:
        emit(str(found))


def _report(
    system: System, folder: Path, outcome: Any, scores: dict[str, float], json: bool
) -> None:
    links = {id: system.link(id).parameters() for id in system.link_ids()}
    trained = [id for id, weights in links.items() if any(w.requires_grad for w in weights)]
    if json:
        numbers = {"steps": outcome.global_step, "train_loss": outcome.training_loss}
        scores_of = {"metrics": outcome.metrics, "eval": scores}
        emit_json({"team": str(folder), "links": trained} | numbers | scores_of)
        return
    count = f"{len(trained)} link{'s' if len(trained) != 1 else ''}"
    note(f"trained {count} in {outcome.global_step} steps, loss {outcome.training_loss:.4g}")
    note(f'next: latentmas run {shlex.quote(str(folder))} "…"')
    emit(str(folder))


def _free(folder: Path) -> Path:
    """The folder, when a team can be saved there: better to know before the training.

    Raises:
        LatentMASError: it holds something else, or cannot be written.
    """
    check_writable(folder / "latentmas.json")
    with suppress(FileNotFoundError):
        if not (folder / "latentmas.json").exists() and any(folder.iterdir()):
            raise LatentMASError(f"{str(folder)!r} holds something other than a saved team")
    return folder
