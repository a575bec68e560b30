"""Options of a run on the command line, made from the fields of `RunOptions`.

A new field of the model is an option of every command that runs a team, with its type, bounds,
default and help, and it is passed on without a line here.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_origin

import typer
from pydantic.fields import FieldInfo

from latentmas.cli.support.options import files_of
from latentmas.errors import LatentMASError
from latentmas.plan import RunOptions, field_bounds, item_type, value_types

__all__ = ["seed_of", "takes_run_options"]

ONLY_PYTHON = frozenset({"record"})
"""Fields that act on what only Python sees."""
_HELP = {"seed": "Random seed for sampling and for untrained links."}
"""Help of fields that do more on the command line."""
_COMPLETIONS: dict[str, Callable[[], list[str]]] = {
    "executor": lambda: ["auto", *files_of("engine.executors")]
}
Command = Callable[..., None]


def takes_run_options(
    *without: str, only: tuple[str, ...] = (), **replaced: Any
) -> Callable[[Command], Command]:
    """Decorator: options of the model take the place of a command's parameter `options`.

    Args:
        without: fields that the command does not offer.
        only: fields that it offers, as changes of options that were recorded: without defaults;
            `options` is a mapping of those that are given.
        replaced: other defaults by field.

    Raises:
        typer.BadParameter: options do not fit, when the command is called.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        fields = {
            name: field
            for name, field in RunOptions.model_fields.items()
            if name not in ONLY_PYTHON.union(without) and (not only or name in only)
        }
        made = {
            name: _parameter(name, field, replaced, bool(only)) for name, field in fields.items()
        }

        @functools.wraps(command)
        def wrapped(**given: Any) -> None:
            asked = {name: given.pop(name) for name in fields}
            asked = {name: value for name, value in asked.items() if value is not None}
            options = _read(asked)
            command(**given, options=asked if only else options)

        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            parameters += made.values() if parameter.name == "options" else [parameter]
        wrapped.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[p.replace(kind=p.KEYWORD_ONLY) for p in parameters]
        )
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate


def _read(given: Mapping[str, Any]) -> RunOptions:
    try:
        return RunOptions.read(given, _flag)
    except LatentMASError as error:
        raise typer.BadParameter(str(error)) from None


def _flag(name: str, value: Any = ..., /) -> str:
    """An option as it is written on the command line."""
    flag = f"--{name.replace('_', '-')}"
    return flag if value is ... or value is True else f"{flag} {value}"


def _parameter(
    name: str, field: FieldInfo, replaced: Mapping[str, Any], optional: bool
) -> inspect.Parameter:
    """A parameter for typer; a field without a default has None."""
    hint = value_types(field)[0]
    several = get_origin(hint) is tuple
    default = None if optional or several else replaced.get(name, field.default)
    text = _help(name, field, several)
    if optional or name in replaced:
        text = text.partition(" Default: ")[0]
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=f"{text} Default: as recorded." if optional else text,
        autocompletion=_COMPLETIONS.get(name),
        **_limits(field, hint),
    )
    item: Any = item_type(hint)
    kind: Any = types.GenericAlias(list, (item,)) if several else item
    kind = kind | None if default is None else kind
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, option],
    )


def _help(name: str, field: FieldInfo, several: bool) -> str:
    """The help of a field, without what only Python can give."""
    text = " ".join((_HELP.get(name) or str(field.description)).split())
    python = text.find("; in Python")
    if python >= 0:
        text = text[:python] + text[text.index(".", python) :]
    return f"{text.removesuffix('.')}; may be repeated." if several else text


def _limits(field: FieldInfo, hint: Any) -> dict[str, Any]:
    """Inclusive bounds of a number; typer shows them, and the model judges the others."""
    if hint not in (int, float):
        return {}
    extra: Any = field.json_schema_extra or {}
    found = field_bounds(field)
    low, high = found.get("ge", extra.get("minimum")), found.get("le")
    known = {"min": low, "max": high if low is not None else None}
    return {name: value for name, value in known.items() if value is not None}


def seed_of(options: RunOptions) -> int:
    """The seed for untrained links: that of sampling, which is one number on the command line."""
    return options.seed if isinstance(options.seed, int) else 0
