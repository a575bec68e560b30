"""Judging one argument at a time: each check returns the value in its plain type, or says why not.

All raise a `LatentMASError` that names the argument, what was found and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, TypeVar

from latentmas.errors import DataError, LatentMASError

__all__ = ["function", "is_unicode", "refuse", "whole"]

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
