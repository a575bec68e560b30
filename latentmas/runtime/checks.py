"""Judging one argument at a time: each check returns the value in its plain type, or says why not.

All raise a `LatentMASError` that names the argument, what was found and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

from latentmas.errors import DataError, LatentMASError

__all__ = ["flag", "function", "is_unicode", "number", "refuse", "seeds", "strings", "whole"]

F = TypeVar("F", bound=Callable[..., Any])


def refuse(name: str, value: object, allowed: str) -> LatentMASError:
    """The error for an argument that is not what it must be."""
    return LatentMASError(f"{name} is {value!r:.60}; {allowed}")


def whole(name: str, value: object, *, least: int | None = 1) -> int:
    """A whole number, at least `least`."""
    low = least is not None and isinstance(value, Integral) and int(value) < least
    if isinstance(value, bool) or not isinstance(value, Integral) or low:
        bound = "" if least is None else f" of at least {least}"
        raise refuse(name, value, f"give a whole number{bound}")
    return int(value)


def number(name: str, value: object, fits: Callable[[float], bool], allowed: str) -> float:
    """A number that fits; `allowed` says which do."""
    if isinstance(value, bool) or not isinstance(value, Real) or not fits(float(value)):
        raise refuse(name, value, f"give a number {allowed}")
    return float(value)


def flag(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise refuse(name, value, "give True or False")
    return value


def strings(name: str, value: object) -> tuple[str, ...]:
    """A string, or several, as a tuple of Unicode texts."""
    items = (value,) if isinstance(value, str) else value
    if isinstance(items, bytes | Mapping) or not isinstance(items, Iterable):
        raise refuse(name, value, "give a string, or a sequence of strings")
    found = tuple(items)
    for item in found:
        if not isinstance(item, str):
            raise refuse(name, value, f"{item!r:.40} in it is no string; give strings alone")
        if not is_unicode(item):
            raise refuse(name, value, "it is not Unicode: half of a surrogate pair is in it")
    return found


def seeds(value: object) -> int | tuple[int, ...]:
    """A seed, or one for each sample."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(whole(f"seed[{i}]", seed, least=None) for i, seed in enumerate(value))
    try:
        return whole("seed", value, least=None)
    except LatentMASError:
        allowed = "give a whole number, or a sequence with one for each sample"
        raise refuse("seed", value, allowed) from None


def function(name: str, value: F | None) -> F | None:
    """Something that can be called, or None."""
    if value is not None and not callable(value):
        raise refuse(name, value, "give a function, or None")
    return value


def is_unicode(value: object) -> bool:
    """Whether UTF-8 can write every text in a plain value.

    Raises:
        DataError: the value holds itself, or is nested deeper than Python can follow.
    """
    try:
        return _is_unicode(value)
    except RecursionError as error:
        raise DataError(
            f"the value {value!r:.60} holds itself, or is nested too deep; give plain values"
        ) from error


def _is_unicode(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, Mapping):
        return all(_is_unicode(key) and _is_unicode(item) for key, item in value.items())
    return not isinstance(value, list | tuple) or all(map(_is_unicode, value))
