"""Training arguments from command-line flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, get_args, get_type_hints

import typer
import yaml

from latentmas.cli.support.options import pairs, unknown
from latentmas.errors import DataError

__all__ = ["make_config", "parse_value", "read_sets", "split_sets"]


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
        typer.BadParameter: a key is unknown, also given by a flag, or takes another type.
        DataError: the values do not fit.
    """
    flags = {key: value for key, value in given.items() if value is not None}
    own = read_sets(kind, sets)
    for key in own:
        if key in flags:
            raise typer.BadParameter(f"--set {key}: its own flag sets it already")
    try:
        return kind(**{**defaults, **flags, **own})
    except (TypeError, ValueError, ImportError) as error:
        raise DataError(f"invalid training arguments: {error}") from error


def read_sets(kind: type[Any], sets: Iterable[str]) -> dict[str, Any]:
    """Fields of a configuration from `key=value` texts of `--set`.

    Raises:
        typer.BadParameter: a key is unknown or takes another type.
    """
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    own: dict[str, Any] = {}
    types = get_type_hints(kind) if sets else {}
    for key, text in pairs("--set", sets).items():
        if key not in known:
            instead = f"neither {kind.__name__} nor transformers.TrainingArguments has it"
            raise unknown("training argument", key, known, instead)
        own[key] = _fitting(key, text, types[key])
    return own


def split_sets(sets: list[str]) -> dict[str, Any]:
    """`--set` of all loops as keywords, and those of one loop under `settings`.

    Raises:
        typer.BadParameter: a loop or a key is unknown, or a key takes another type.
    """
    from latentmas.training.loops import in_order

    kinds = {name: loop.parts()[1] for name, loop in in_order().items()}
    common: dict[str, Any] = {}
    settings: dict[str, dict[str, Any]] = {}
    for text in sets:
        name, dot, _ = text.partition("=")[0].partition(".")
        if dot and name not in kinds:
            raise unknown("training loop", name, kinds, f"known: {', '.join(kinds)}")
        if dot:
            settings.setdefault(name, {}).update(read_sets(kinds[name], [text.partition(".")[2]]))
            continue
        having = [kind for kind in kinds.values() if name in kind.__dataclass_fields__]
        common |= read_sets((having or list(kinds.values()))[-1], [text])
    return {"settings": settings, **common}


_SIMPLE = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "null",
}


def _fitting(key: str, text: str, hint: Any) -> Any:
    """The value of a field, when its type is simple enough to be checked: 3 for 3.0, "3" for 3.

    Raises:
        typer.BadParameter: the field takes something else.
    """
    value = parse_value(key, text)
    kinds = get_args(hint) or (hint,)
    if type(value) in kinds or any(kind not in _SIMPLE for kind in kinds):
        return value
    if float in kinds and type(value) is int:
        return value
    if int in kinds and isinstance(value, float) and value.is_integer():
        return int(value)
    if str in kinds and isinstance(value, bool | int | float):
        return text.strip()
    wanted = " or ".join(_SIMPLE[kind] for kind in kinds if kind is not NoneType)
    raise typer.BadParameter(f"--set {key}: {key} takes {wanted}, found {text!r}")


def parse_value(key: str, text: str) -> Any:
    """A value as YAML reads it, but only true and false are truth values, and 1e-4 is a number.

    Raises:
        typer.BadParameter: it is not YAML.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise typer.BadParameter(f"--set {key}: {text!r} is not a YAML value: {reason}") from error
    if isinstance(value, bool) and text.strip().lower() not in ("true", "false"):
        return text.strip()  # "no" and "off" are names of strategies
    if isinstance(value, str) and value[:1] in "+-.0123456789":
        try:
            return float(value)
        except ValueError:
            return value
    return value
