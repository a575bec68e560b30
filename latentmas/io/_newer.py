"""Read files of a newer format: drop unknown fields and report them."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from latentmas import __version__
from latentmas.redact import get_logger

__all__ = ["is_newer", "say_left_out", "upgrade", "without_unknown"]

log = get_logger("latentmas.io")


def is_newer(data: Mapping[str, Any], version: int) -> bool:
    """Whether a file was written in a newer format or by a newer release of this package.

    Args:
        data: content of the file, with the fields `version` and `latentmas`.
        version: the newest format that this package writes.
    """
    found, release = data.get("version"), data.get("latentmas")
    if isinstance(found, int) and found > version:
        return True
    return isinstance(release, str) and _numbers(release) > _numbers(__version__)


def without_unknown(
    model: type[BaseModel], data: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The data without the fields that `model` does not know, and the dotted names of those."""
    known = copy.deepcopy(dict(data))
    try:
        model.model_validate(known)
    except ValidationError as error:
        places = [e["loc"] for e in error.errors() if e["type"] == "extra_forbidden"]
    else:
        places = []
    for place in places:
        _remove(known, place)
    return known, [".".join(map(str, place)) for place in places]


def upgrade(data: Mapping[str, Any]) -> str:
    """Advice on which release to install."""
    release = str(data.get("latentmas"))
    wanted = f">={release}" if re.fullmatch(r"\d+(\.\d+)*", release) else ""
    return f"this is latentmas {__version__}; upgrade with: pip install -U 'latentmas{wanted}'"


def say_left_out(where: str, data: Mapping[str, Any], names: list[str]) -> None:
    """Warn that unknown fields of a newer file were ignored."""
    log.warning(
        "%s was written by latentmas %s (format %s); ignoring fields unknown here: %s; %s",
        *(where, data.get("latentmas"), data.get("version"), ", ".join(names), upgrade(data)),
    )


def _remove(data: Any, place: tuple[int | str, ...]) -> None:
    for key in place[:-1]:
        data = data[key]
    del data[place[-1]]


def _numbers(release: str) -> tuple[int, ...]:
    """`"0.10.2rc1"` → (0, 10, 2)."""
    found = re.match(r"\d+(\.\d+)*", release)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
