"""The folder `training/` of a saved team: one subfolder per training, and the scores."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from latentmas.atomic import write_text_atomically
from latentmas.errors import WeightsError
from latentmas.io.storage.folder import part, part_names
from latentmas.redact import redact
from latentmas.runtime import Score, TrainingRecord
from latentmas.safe_data import inside, parse_json, read_bounded

__all__ = ["plain", "read_history", "read_scores", "write_history"]

LARGEST = 64 * 2**20
SCORES = "training/scores.json"


def write_history(folder: Path, history: Sequence[TrainingRecord], scores: Sequence[Score]) -> None:
    """Write `training/1-inner/arguments.json`, `log.jsonl`, `manifest.json`, …, `scores.json`."""
    for number, record in enumerate(history, start=1):
        home = folder / "training" / f"{number}-{record.loop}"
        _write(home / "arguments.json", _json(record.arguments, indent=2) + "\n")
        _write(home / "log.jsonl", "".join(f"{_json(entry)}\n" for entry in record.log))
        _write(home / "manifest.json", _json(record.manifest, indent=2) + "\n")
    if scores:
        _write(folder / SCORES, _json([asdict(score) for score in scores], indent=2) + "\n")


def read_history(folder: str | Path) -> list[TrainingRecord]:
    """Read the training records of a saved team, oldest first.

    Raises:
        WeightsError: LM502 when one of their files cannot be read.
    """
    folder = Path(folder)
    names = part_names(folder, "training")
    homes = {name.rpartition("/")[0] for name in names if name != SCORES}
    found = []
    for home in sorted(homes, key=lambda home: (int(home.split("/")[1].partition("-")[0]), home)):
        log = _text(folder, f"{home}/log.jsonl")
        found.append(
            TrainingRecord(
                loop=home.partition("-")[2],
                arguments=_object(folder, f"{home}/arguments.json"),
                log=[
                    _parsed(folder, f"{home}/log.jsonl", line) for line in log.split("\n") if line
                ],
                manifest=_object(folder, f"{home}/manifest.json"),
            )
        )
    return found


def read_scores(folder: Path) -> list[Score]:
    """Read the scores of a saved team.

    Raises:
        WeightsError: LM502 when their file cannot be read.
    """
    if SCORES not in part_names(folder, "training"):
        return []
    listed = _parsed(folder, SCORES, _text(folder, SCORES))
    try:
        return TypeAdapter(list[Score]).validate_python(listed)
    except ValidationError as error:
        raise WeightsError(
            f"LM502 {part(folder, SCORES)} is not a list of scores: {error}"
        ) from error


def plain(value: Any) -> Any:
    """Convert to plain data for JSON: keys become text, and NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | None) else redact(str(value))


def _json(value: Any, indent: int | None = None) -> str:
    text = json.dumps(plain(value), indent=indent, ensure_ascii=False)
    return text if _encodes(text) else json.dumps(plain(value), indent=indent)


def _encodes(text: str) -> bool:
    """Whether UTF-8 can encode the text; false for unpaired surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _write(path: Path, text: str) -> None:
    write_text_atomically(path, text)


def _object(folder: Path, name: str) -> dict[str, Any]:
    found = _parsed(folder, name, _text(folder, name))
    if not isinstance(found, dict):
        raise WeightsError(
            f"LM502 {part(folder, name)} holds {type(found).__name__}, not an object"
        )
    return found


def _parsed(folder: Path, name: str, text: str) -> Any:
    try:
        return parse_json(text, numbers="nan")
    except ValueError as error:
        raise WeightsError(f"LM502 {part(folder, name)} is not JSON: {error}") from error


def _text(folder: Path, name: str) -> str:
    path = part(folder, name)
    if not inside(folder, path):
        raise WeightsError(f"LM502 {name!r} points outside the folder {str(folder)!r}")
    try:
        return read_bounded(path, LARGEST).decode("utf-8")
    except (OSError, ValueError) as error:
        raise WeightsError(f"LM502 {path} cannot be read: {error}") from error
