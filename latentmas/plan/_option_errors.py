"""What is wrong with options, in the words of whoever gave them: Python, or the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import NoneType
from typing import Any, Literal, Protocol, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from latentmas.errors import LatentMASError, UnknownNameError

__all__ = [
    "Conflict",
    "ConflictError",
    "Spell",
    "field_bounds",
    "in_python",
    "item_type",
    "option_error",
    "value_types",
]


class Spell(Protocol):
    """How an option is written."""

    def __call__(self, name: str, value: Any = ..., /) -> str:
        """The option's name, or what sets it to a value."""


def in_python(name: str, value: Any = ..., /) -> str:
    """`temperature`, or `temperature=0.5`."""
    return name if value is ... else f"{name}={value!r}"


Conflict = Callable[[Spell], str]
"""A message about options that do not go together."""


class ConflictError(ValueError):
    """Options that are fine by themselves, but not together."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        self.conflicts = conflicts
        super().__init__("; ".join(conflict(in_python) for conflict in conflicts))


def option_error(
    model: type[BaseModel], error: ValidationError, given: Mapping[str, Any], spell: Spell
) -> LatentMASError:
    """One error for everything that pydantic found.

    Args:
        model: class of the options.
        error: what it raised.
        given: the options by name.
        spell: how they are written.

    Returns:
        An UnknownNameError where one name is all that is wrong.
    """
    found = list(_problems(model, error, given, spell))
    if len(found) == 1:
        return found[0]
    lines = "".join(f"\n  {problem}" for problem in found)
    return LatentMASError(f"{len(found)} options do not fit:{lines}")


def _problems(
    model: type[BaseModel], error: ValidationError, given: Mapping[str, Any], spell: Spell
) -> Iterator[LatentMASError]:
    by_field: dict[str, list[Any]] = {}
    for item in error.errors(include_url=False):
        found = item.get("ctx", {}).get("error")
        if isinstance(found, ConflictError):
            yield from (LatentMASError(conflict(spell)) for conflict in found.conflicts)
        else:
            by_field.setdefault(str(item["loc"][0]), []).append(item)
    for name, items in by_field.items():
        yield _problem(spell(name), model.model_fields[name], items, given.get(name))


def _problem(name: str, field: FieldInfo, items: list[Any], value: Any) -> LatentMASError:
    """The message about one option; of several tries of a union, the one that came furthest."""
    skip = 2 if len(value_types(field)) > 1 else 1
    item = max(items, key=lambda item: len(item["loc"]))
    inner = item["loc"][skip:]
    if item["type"] == "literal_error":
        known = _names(field)
        return UnknownNameError(name, item["input"] if inner else value, known)
    if not inner:
        return LatentMASError(f"{name} is {value!r:.60}; give {_allowed(field)}")
    where = name if isinstance(value, str) else f"{name}[{inner[-1]!r}]"
    return LatentMASError(f"{where} is {item['input']!r:.60}; {_ELEMENT[_kind(item['type'])]}")


_ELEMENT = {
    "int": "give a whole number",
    "greater": "give a whole number of at least 1",
    "string": "give a string",
    "short": "leave the empty string out",
    "unicode": "half of a surrogate pair is in it, which UTF-8 cannot write",
}
"""Kind of error → what an item of a sequence or mapping may be."""


def _kind(error: str) -> str:
    return {"string_too_short": "short", "string_unicode": "unicode"}.get(
        error, error.split("_")[0]
    )


def value_types(field: FieldInfo) -> tuple[Any, ...]:
    """The types that an option takes besides None, without their bounds: `(int,)`."""
    hint = field.annotation
    union = get_args(hint) if get_origin(hint) not in (tuple, dict, Literal) else ()
    return tuple(_bare(one) for one in union or (hint,) if one is not NoneType)


def item_type(hint: Any) -> Any:
    """The type of the items of a sequence type; any other type as it is."""
    return _bare(get_args(hint)[0]) if get_origin(hint) is tuple else hint


def _bare(hint: Any) -> Any:
    return hint.__origin__ if hasattr(hint, "__metadata__") else hint


def field_bounds(field: FieldInfo) -> dict[str, float]:
    """Bounds of a number: `ge`, `gt`, `le`, `lt`."""
    return {
        name: value
        for item in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(item, name, None)) is not None
    }


def _names(field: FieldInfo) -> tuple[str, ...]:
    """The names that an option takes, or that its items take."""
    (hint,) = value_types(field)
    return get_args(item_type(hint))


def _allowed(field: FieldInfo) -> str:
    """What an option takes, for a message."""
    more: Any = field.json_schema_extra or {}
    if "allowed" in more:
        return str(more["allowed"])
    (kind,) = value_types(field)
    if kind is bool:
        return "True or False"
    end = ", or None" if NoneType in get_args(field.annotation) else ""
    hint = f"; {more['hint']}" if "hint" in more else ""
    return (
        ("a whole number" if kind is int else "a number") + _range(field_bounds(field)) + end + hint
    )


def _range(found: dict[str, float]) -> str:
    low, high = found.get("ge"), found.get("le")
    if low is not None:
        return f" of at least {low}" if high is None else f" from {low} to {high}"
    above = f" above {found['gt']}" if "gt" in found else ""
    return above + (f" and at most {high}" if high is not None else "")
