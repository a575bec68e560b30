"""Training arguments from command-line flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import typer
import yaml

from latentmas.cli._options import pairs, unknown
from latentmas.errors import DataError

__all__ = ["make_config", "parse_value"]


def make_config(
    kind: type[Any], given: Mapping[str, Any], sets: Iterable[str], defaults: Mapping[str, Any]
) -> Any:
    """Build a training configuration.

    Args:
        kind: the dataclass.
        given: from flags; None means that the flag was not given.
        sets: `key=value` texts of `--set`.
        defaults: what holds unless `sets` says otherwise.

    Raises:
        typer.BadParameter: a key is unknown, or also given by a flag.
        DataError: the values do not fit.
    """
    flags = {key: value for key, value in given.items() if value is not None}
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    own: dict[str, Any] = {}
    for key, text in pairs("--set", sets).items():
        if key not in known:
            instead = f"neither {kind.__name__} nor transformers.TrainingArguments has it"
            raise unknown("training argument", key, known, instead)
        if key in flags:
            raise typer.BadParameter(f"--set {key}: a flag of its own gives it already")
        own[key] = parse_value(key, text)
    try:
        return kind(**{**defaults, **flags, **own})
    except (TypeError, ValueError, ImportError) as error:
        raise DataError(f"these training arguments do not fit: {error}") from error


def parse_value(key: str, text: str) -> Any:
    """A value as YAML reads it, but only true and false are truth values, and 1e-4 is a number.

    Raises:
        typer.BadParameter: it is no YAML.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise typer.BadParameter(f"--set {key}: {text!r} is no YAML value: {reason}") from error
    if isinstance(value, bool) and text.strip().lower() not in ("true", "false"):
        return text.strip()  # "no" and "off" are names of strategies
    if isinstance(value, str) and value[:1] in "+-.0123456789":
        try:
            return float(value)
        except ValueError:
            return value
    return value
