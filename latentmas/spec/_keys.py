"""Invalid keys and values of a declaration, reported with the closest valid one."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import ValidationError

from latentmas.errors import Problem, closest
from latentmas.redact import redact
from latentmas.spec._base import Frozen

__all__ = ["correct_keys", "form_problem", "value_problems", "without_harmless"]

Place = tuple[str | int, ...]
SCHEMA = "see `latentmas schema` for the form of a graph file"
FILE_KEYS = {"AgentSpec": ("prompt_file",), "Backbone": ("chat_template_file",)}
"""Keys that a graph file accepts in addition to the fields of a record."""
HARMLESS = frozenset(
    {
        *("version", "name", "rounds", "latent_steps", "dtype", "revision", "family", "attention"),
        *("quantization", "tokenizer", "chat_template", "load", "skip_modules", "double_quant"),
        *(
            "threshold",
            "trust_remote_code",
            "kind",
            "options",
            "init",
            "norm",
            "share",
            "allow_empty",
        ),
        *("max_new_tokens", "chat_options", "tools", "tool_style", "max_tool_calls"),
    }
)
"""Fields whose bad value can be replaced by the default without causing further problems."""
_MEANT = {
    "from": ("source",),
    "to": ("target",),
    "model": ("backbone", "source"),
    "type": ("kind",),
    "nodes": ("agents",),
    "links": ("edges",),
    "system_prompt": ("system",),
}
"""Terms of other libraries → the equivalent keys."""
_TAKES = {
    "int": "takes a whole number",
    "float": "takes a number",
    "bool": "takes true or false",
    "string": "takes text",
    "tuple": "takes a list",
    "dict": "takes a mapping",
    "model": "takes a mapping",
}
"""First word of pydantic's error type → the kind of value the field takes."""


class Slip(NamedTuple):
    """An unknown key of a record."""

    place: Place
    known: tuple[str, ...]
    guess: str | None


def form_problem(path: str, message: str, hint: str = SCHEMA) -> Problem:
    """An LM100 problem."""
    return Problem("LM100", path, message, hint)


def correct_keys(data: Any, model: type[Frozen]) -> tuple[Any, list[Problem]]:
    """Rename misspelt keys to the closest known ones and drop the other unknown keys.

    Args:
        data: Plain data, of any form.
        model: The record class that the data declare.

    Returns:
        The corrected data, so that further problems can be found, and an LM100 problem for each
        unknown key.
    """
    slips: list[Slip] = []
    corrected = _corrected(data, model, (), slips)
    return corrected, [_slip_problem(slip) for slip in slips]


def _corrected(value: Any, model: type[Frozen], place: Place, slips: list[Slip]) -> Any:
    if not isinstance(value, dict):
        return value
    known = (*model.model_fields, *FILE_KEYS.get(model.__name__, ()))
    result = {}
    for key, item in value.items():
        name = key
        if isinstance(key, str) and key not in known:
            free = [field for field in known if field not in value and field not in result]
            guess = closest(key, free) or next((n for n in _MEANT.get(key, ()) if n in free), None)
            slips.append(Slip((*place, key), known, guess or closest(key, known)))
            if guess is None:
                continue
            name = guess
        result[name] = _below(item, model, name, (*place, key), slips)
    return result


def _below(item: Any, model: type[Frozen], name: Any, place: Place, slips: list[Slip]) -> Any:
    """The value of a field, with the keys of its nested records corrected."""
    field = model.model_fields.get(name)
    if field is None:
        return item
    origin, inside = get_origin(field.annotation), get_args(field.annotation)
    if origin is UnionType:  # an optional record
        origin, inside = None, inside[:1]
        record = inside[0]
    else:
        record = field.annotation if origin is None else inside[-1] if origin is dict else inside[0]
    if not isinstance(record, type) or not issubclass(record, Frozen):
        return item
    if origin is None:
        return _corrected(item, record, place, slips)
    if origin is dict and isinstance(item, dict):
        return {k: _corrected(one, record, (*place, k), slips) for k, one in item.items()}
    if origin is tuple and isinstance(item, list | tuple):
        return [_corrected(one, record, (*place, i), slips) for i, one in enumerate(item)]
    return item


def _slip_problem(slip: Slip) -> Problem:
    path = ".".join(map(str, slip.place))
    hint = f"did you mean {slip.guess!r}?" if slip.guess else f"known keys: {', '.join(slip.known)}"
    return form_problem(path, f"unknown key {str(slip.place[-1])!r:.60}", hint)


def value_problems(error: ValidationError) -> list[Problem]:
    """An LM100 problem for each invalid value."""
    return [_value_problem(item) for item in error.errors(include_url=False)]


def _value_problem(item: Any) -> Problem:
    path = ".".join(str(part) for part in item["loc"]) or "graph"
    found = item.get("input")
    found = redact(found) if isinstance(found, str) else found
    shown = f", found {found!r:.60}" if isinstance(found, str | int | float | bool) else ""
    kind = str(item["type"])
    if kind == "missing":
        return form_problem(path, f"required key {path.rpartition('.')[2]!r} is missing")
    if kind == "literal_error":
        return _not_one_of(path, str(item["ctx"]["expected"]), found, shown)
    said, _, hint = str(item["msg"]).removeprefix("Value error, ").partition("; ")
    message = _TAKES.get(kind.split("_")[0]) or said
    if kind == "model_type" and isinstance(found, str) and path.endswith((".inner", ".link")):
        hint = f"write `{{kind: {found}}}`"
    return form_problem(path, f"{message}{shown}", hint or SCHEMA)


def _not_one_of(path: str, expected: str, found: Any, shown: str) -> Problem:
    known = [name.strip(" '") for name in expected.replace(" or ", ", ").split(",")]
    guess = closest(found, known) if isinstance(found, str) else None
    hint = f"did you mean {guess!r}?" if guess else "use one of these"
    return form_problem(path, f"takes {expected}{shown}", hint)


def without_harmless(data: Any, error: ValidationError) -> Any:
    """The data without the invalid values; None if other parts depend on one of them."""
    places = [item["loc"] for item in error.errors(include_url=False, include_input=False)]
    keys = [_key_of(place) for place in places]
    if not all(key in HARMLESS for _, key in keys):
        return None
    faulty = {place for place, _ in keys}
    return _without(data, faulty, ())


def _key_of(place: Place) -> tuple[Place, str]:
    """The innermost field in `HARMLESS` on the path to a value, and its path."""
    for length in range(len(place), 0, -1):
        key = place[length - 1]
        if isinstance(key, str) and key in HARMLESS:
            return place[:length], key
    return place, ""


def _without(value: Any, faulty: set[Place], place: Place) -> Any:
    if isinstance(value, dict):
        return dict(_kept(value.items(), faulty, place))
    if isinstance(value, list | tuple):
        return [v for _, v in _kept(enumerate(value), faulty, place)]
    return value


def _kept(pairs: Any, faulty: set[Place], place: Place) -> Iterator[tuple[Any, Any]]:
    for key, item in pairs:
        if (*place, key) not in faulty:
            yield key, _without(item, faulty, (*place, key))
