"""`Cell`: one team of a study, trained and evaluated once, and what came out of it."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentmas.atomic import check_writable, write_text_atomically
from latentmas.environment import hardware, versions
from latentmas.errors import DataError, LatentMASError
from latentmas.evaluation import Evaluation, evaluate
from latentmas.metering import release_unused
from latentmas.runtime import System
from latentmas.safe_data import read_json

__all__ = [
    "Cell",
    "CellResult",
    "Setting",
    "begun_digest",
    "in_words",
    "read_cell",
    "read_cells",
    "run_cell",
]

FILE, BEGUN = "cell.json", "begun.json"
LARGEST = 2**26
FORMAT = 1

Setting = str | int | float | bool | None
Measure = Callable[[System], Mapping[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One combination of settings of a study."""

    settings: Mapping[str, Setting]
    """What distinguishes it from the other cells: `{"link": "soft_token", "seed": 0}`."""
    depends_on: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else its result depends on, as plain data: digests of the team and of the rows, the
    configuration of the training. A finished cell is reused only where this is the same."""

    @property
    def name(self) -> str:
        """Name of its folder, made of the settings."""
        parts = [f"{name}={value}" for name, value in self.settings.items()]
        plain = re.sub(r"[^A-Za-z0-9_.=,+-]+", "-", ",".join(parts)) or "cell"
        if len(plain) <= 120:
            return plain
        return f"{plain[:107]}-{_digest(dict(self.settings))[:12]}"

    @property
    def digest(self) -> str:
        """SHA-256 of the settings and of what else the result depends on, in hexadecimal."""
        return _digest({"settings": dict(self.settings), "depends_on": dict(self.depends_on)})


@dataclass(frozen=True)
class CellResult:
    """What came out of a cell."""

    settings: dict[str, Setting]
    """Settings of the cell."""
    digest: str
    """Digest of the cell."""
    evaluations: dict[str, dict[str, Any]]
    """Name of an evaluation → `Evaluation.to_dict()`, with the score of each row as `row_scores`
    and the number of the first row with the same question as `row_questions`. The name is `""`
    where there is only one."""
    facts: dict[str, Any]
    """What was measured of the trained team: parameters, memory and the like."""
    seconds: float
    """Wall time of the training and the evaluations in the session that finished the cell."""
    versions: dict[str, Any] = field(repr=False)
    """Versions of the packages."""
    hardware: dict[str, Any] = field(repr=False)
    """Machine that finished the cell."""
    folder: Path = field(repr=False)
    """Folder with everything that was kept."""

    def evaluation(self, name: str = "") -> dict[str, Any]:
        """An evaluation by name.

        Raises:
            LatentMASError: the cell has no evaluation of that name.
        """
        if name not in self.evaluations:
            raise LatentMASError(
                f"{str(self.folder)!r} has no evaluation {name!r}; it has "
                f"{', '.join(map(repr, self.evaluations))}"
            )
        return self.evaluations[name]


def run_cell(
    study: str | Path,
    cell: Cell,
    prepare: Callable[[Path], System],
    rows: Sequence[Mapping[str, Any]],
    *,
    runs: Mapping[str, Mapping[str, Any]] | None = None,
    measure: Measure | None = None,
    **options: Any,
) -> CellResult:
    """Train and evaluate a cell, unless that is done; continue it where it was stopped.

    The cell's folder, `study/<name>`, holds `cell.json` once the cell is finished, the rows of each
    evaluation as JSONL, and what `prepare` writes there. A finished cell that lacks an evaluation
    of `runs` is continued, and keeps the ones that it has.

    Args:
        study: Folder of the study.
        cell: Settings of the cell.
        prepare: Makes the system, and trains it if it is to be trained; is given the cell's folder
            and is not called for a finished cell. A training that continues where it was stopped
            (`lm.train(…, resume="auto")`) makes the whole cell do so.
        rows: Samples with the inputs of the graph and the correct answer.
        runs: Name of an evaluation → its own options, such as `{"rounds=2": {"rounds": 2}}`; None
            for one evaluation.
        measure: Returns further facts on the evaluated system, as plain data.
        **options: Options of `evaluate` for all evaluations.

    Returns:
        The result, which is also in `cell.json`.

    Raises:
        DataError: the folder holds a cell of other settings, data or training.
    """
    folder, wanted = Path(study) / cell.name, runs or {"": {}}
    done = _begun(folder, cell)
    if done is not None and done.evaluations.keys() >= wanted.keys():
        return done
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / FILE)
    write_text_atomically(folder / BEGUN, json.dumps({"digest": cell.digest}) + "\n")
    began = time.perf_counter()
    system = prepare(folder)
    evaluations = {} if done is None else dict(done.evaluations)
    for name in [name for name in wanted if name not in evaluations]:
        output = folder / f"rows{'-' * bool(name)}{re.sub(r'[^A-Za-z0-9_.=-]+', '-', name)}.jsonl"
        given = {**options, **wanted[name], "output": output, "resume": output.exists()}
        evaluations[name] = _plain(evaluate(system, rows, **given))
    facts = {} if measure is None else dict(measure(system))
    before = 0.0 if done is None else done.seconds
    result = CellResult(
        settings=dict(cell.settings),
        digest=cell.digest,
        evaluations=evaluations,
        facts=facts,
        seconds=round(before + time.perf_counter() - began, 3),
        versions=versions(),
        hardware=hardware(),
        folder=folder,
    )
    _write(result)
    del system
    release_unused()  # a training may have taken gigabytes, which the C library would keep
    return result


def read_cells(study: str | Path) -> list[CellResult]:
    """The finished cells of a study, in the order of their folders' names.

    Raises:
        DataError: a cell's file is damaged.
    """
    return [_read(path) for path in sorted(Path(study).glob(f"*/{FILE}"))]


def read_cell(study: str | Path, cell: Cell) -> CellResult | None:
    """The result of a cell; None unless it is finished.

    Raises:
        DataError: its file is damaged.
    """
    path = Path(study) / cell.name / FILE
    return _read(path) if path.exists() else None


def in_words(settings: Mapping[str, Setting]) -> str:
    """Settings in words: `link=recursive, latent_steps=8`."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def begun_digest(folder: Path) -> str | None:
    """Digest of the cell that a folder holds, finished or not; None if it holds none.

    Raises:
        DataError: the file is damaged.
    """
    if (folder / FILE).exists():
        return _read(folder / FILE).digest
    if not (folder / BEGUN).exists():
        return None
    try:
        return str(read_json(folder / BEGUN, LARGEST)["digest"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{str(folder / BEGUN)!r} is damaged ({error!r:.200}); delete its folder"
        ) from error


def _begun(folder: Path, cell: Cell) -> CellResult | None:
    """What the folder holds of the cell, if it is finished.

    Raises:
        DataError: the folder holds another cell.
    """
    if begun_digest(folder) not in (None, cell.digest):
        raise DataError(
            f"{str(folder)!r} holds a cell that was made from another team, other data or another "
            "training; delete it, or choose another folder for the study"
        )
    return _read(folder / FILE) if (folder / FILE).exists() else None


def _plain(evaluation: Evaluation) -> dict[str, Any]:
    first: dict[str, int] = {}
    questions = [first.setdefault(name, row) for row, name in enumerate(evaluation.clusters)]
    facts = evaluation.to_dict() | {"row_scores": list(evaluation.row_scores)}
    facts["row_questions"] = questions
    for name, other in evaluation.others.items():
        facts["others"][name]["row_scores"] = list(other.row_scores)
    return facts


def _write(result: CellResult) -> None:
    names = ("settings", "digest", "evaluations", "facts", "seconds", "versions", "hardware")
    plain = {"format": FORMAT} | {name: getattr(result, name) for name in names}
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text_atomically(result.folder / FILE, text)


def _read(path: Path) -> CellResult:
    try:
        found = read_json(path, LARGEST)
        if found.pop("format") != FORMAT:
            raise DataError("it was written by another version of latentmas")
        return CellResult(**found, folder=path.parent)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{str(path)!r} is not the result of a cell: {error!r:.200}") from error


def _digest(plain: Mapping[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
