"""`run_paper`: run a small version of the paper's tables, and build one report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from latentmas.atomic import check_writable
from latentmas.backbones import fast_dtype
from latentmas.environment import hardware, versions
from latentmas.errors import DataError, LatentMASError, closest
from latentmas.studies.paper import state as states
from latentmas.studies.paper._base import in_order
from latentmas.studies.paper.presets import Preset, open_preset
from latentmas.studies.paper.report import PaperReport, PlannedSection
from latentmas.studies.paper.session import Session
from latentmas.studies.paper.state import FILE, Record
from latentmas.studies.paper.work import Work

__all__ = ["plan_paper", "run_paper"]


def plan_paper(
    preset: str | Path | Preset = "small",
    folder: str | Path = "paper-out",
    *,
    only: Sequence[str] | None = None,
    seeds: int | None = None,
    models: Mapping[str, str] | None = None,
) -> list[PlannedSection]:
    """List sections, their expected time and how far they have come; nothing is loaded.

    Arguments and errors are those of `run_paper`.
    """
    chosen = open_preset(preset).changed(seeds=seeds, models=models or {})
    record = Record.read(Path(folder))
    done = {} if record is None else record.sections
    return [
        PlannedSection(
            name,
            section.title,
            done.get(name, {}).get("state", states.WAITING),
            chosen.seeds_of(name),
            chosen.sizes(name).seconds,
        )
        for name, section in in_order(only).items()
    ]


def run_paper(
    preset: str | Path | Preset = "small",
    folder: str | Path = "paper-out",
    *,
    only: Sequence[str] | None = None,
    data: Mapping[str, str | Path] | None = None,
    seeds: int | None = None,
    models: Mapping[str, str] | None = None,
    device: str | None = None,
    progress: bool = True,
) -> PaperReport:
    """Run a small version of the paper's tables, claim by claim, and build one HTML report.

    Whatever is finished is kept: the same call again, after an interruption of any kind, continues.
    The page is rewritten after each section. A section that fails does not stop the others. Several
    processes may run one report at the same time: each section is run by one of them, and all
    return the whole report.

    Args:
        preset: `"small"`, `"tiny"`, a YAML file with the fields of `Preset`, or a preset.
        folder: Folder of the report: `index.html`, the verdicts as a table in `verdicts.md`,
            everything as data in `paper.json`, and the cells of all studies.
        only: Names of sections; None runs all.
        data: Files by name: `gsm8k`, `gsm8k-train`.
        seeds: Number of seeds of every section; None takes the preset's.
        models: Sources of models by name: `reader`, `answerer`; others are the preset's.
        device: Device of the models; None uses the first GPU, or the CPU if there is none.
        progress: Whether to print lines on stderr.

    Returns:
        Outcomes of the sections, and the page.

    Raises:
        LatentMASError: a name is unknown.
        DataError: a file cannot be read, or the folder holds a report of other models.
        PaperInterrupted: Ctrl-C was pressed.
    """
    chosen = open_preset(preset).changed(seeds=seeds, models=models or {})
    wanted = in_order(only)
    for name in wanted:
        chosen.sizes(name)
    files = _files(data or {})
    place = Path(folder)
    check_writable(place / FILE)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = chosen.model_copy(update={"dtype": _dtype(place, chosen, where)})
    record = Record.open(place, chosen.model_dump(mode="json"))
    record.machine = {"hardware": hardware(), "versions": versions(), "device": where}
    work = Work("", chosen, place, files, where, progress)
    run = Session(record, work, wanted, _command(preset, seeds, models or {}, files))
    run.all()
    return run.report()


def _dtype(folder: Path, preset: Preset, device: str) -> str:
    """The data type that the preset names, or else that of the report in the folder."""
    before = Record.read(folder)
    kept = None if before is None else before.preset["dtype"]
    return preset.dtype or kept or fast_dtype(device)


def _command(
    preset: str | Path | Preset,
    seeds: int | None,
    models: Mapping[str, str],
    data: Mapping[str, Path],
) -> str:
    """The command that a report can be repeated with; names of files without their folders."""
    name = preset.name if isinstance(preset, Preset) else Path(preset).name
    words = ["latentmas", "paper", "--preset", name]
    words += [] if seeds is None else ["--seeds", str(seeds)]
    words += [word for pair in models.items() for word in ("--model", "=".join(pair))]
    words += [word for key, path in data.items() for word in ("--data", f"{key}={path.name}")]
    return shlex.join(words)


def _files(data: Mapping[str, str | Path]) -> dict[str, Path]:
    """Data files by name.

    Raises:
        LatentMASError: no section reads data of that name.
        DataError: a file is missing.
    """
    known = [name for section in in_order().values() for name in section.data]
    for name, path in data.items():
        if name not in known:
            guess = closest(name, known)
            hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(known)}"
            raise LatentMASError(f"no section reads data named {name!r}; {hint}")
        if not Path(path).is_file():
            raise DataError(f"data {name!r}: {str(path)!r} is not a file")
    return {name: Path(path) for name, path in data.items()}
