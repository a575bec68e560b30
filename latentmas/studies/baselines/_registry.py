"""The registry of baselines, and how one is opened with its options."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from latentmas.errors import LatentMASError, unexpected_keyword
from latentmas.registry import Registry
from latentmas.studies.baselines._base import Baseline

__all__ = ["baselines", "open_baseline"]

baselines: Registry[type[Baseline]] = Registry("baseline", "latentmas.studies.baselines")
"""Every baseline by name."""


def open_baseline(name: str, **options: Any) -> Baseline:
    """A baseline with its options.

    Args:
        name: Registered name, such as `"lora"`.
        **options: Options of the baseline.

    Raises:
        UnknownNameError: The baseline is unknown.
        TypeError: The baseline has no option of that name.
        LatentMASError: Values do not fit; the error lists all of them.
    """
    kind = baselines.get(name)
    known = list(kind.Options.model_fields)
    for option in options:
        if option not in known:
            raise unexpected_keyword(f"baseline {name!r}", option, known)
    try:
        read = kind.Options.model_validate(options)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}, found {one['input']!r:.60}"
            for one in error.errors()
        )
        raise LatentMASError(f"options of baseline {name!r} do not fit: {wrong}") from error
    made = kind(read)
    made.name = name
    return made
