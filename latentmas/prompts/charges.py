"""Upper bounds on the results of template operations, computed from their arguments in advance."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from latentmas.prompts.budget import CONTAINERS, MOST_BITS, OverBudgetError, budget

__all__ = ["check_filter", "check_method", "check_operator", "check_width", "drained"]

WIDEST = 1_000
"""Maximum width, precision or count in arguments of filters, methods and formats."""
ENCODINGS = frozenset({"utf-8", "utf8", "ascii", "latin-1", "latin1"})
"""Allowed encodings; others may be slow on crafted text."""
_SLOW = {
    **dict.fromkeys(("dictsort", "groupby", "max", "min", "sort", "unique"), 20),
    **dict.fromkeys(("tojson", "urlencode", "wordcount", "xmlattr", "striptags"), 20),
    **dict.fromkeys(("pprint", "title"), 50),
    **dict.fromkeys(("urlize", "wordwrap"), 400),
}
"""Filters that cost more than reading their value → the measured factor."""
_NUMBERS = re.compile(r"\d+")
_FORMAT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(\*|\d*)(?:\.(\*|\d*))?")


def drained(value: Any) -> Any:
    """Convert an iterator to a list, charging per item; other values are returned unchanged."""
    if not isinstance(value, Iterator):
        return value
    found = []
    for item in value:
        budget().spend(1)
        found.append(item)
    return found


def check_width(text: str) -> None:
    """Reject a format such as `>1000000000`."""
    for number in _NUMBERS.findall(text):
        _narrow(int(number[:20]))


def _narrow(number: object, most: int = WIDEST) -> None:
    if isinstance(number, int) and abs(number) > most:
        raise OverBudgetError(
            f"the template asks for a width, a count or a precision of {str(number)[:20]}; at most "
            f"{most:,} is allowed"
        )


# --- operators ----------------------------------------------------------------------------------


def check_operator(operator: str, left: Any, right: Any) -> None:
    """Charge for the result of `left operator right`.

    Raises:
        OverBudgetError: The result would exceed the budget.
    """
    if isinstance(left, int) and isinstance(right, int):
        _check_integers(operator, left, right)
    elif operator == "*":
        times, value = (left, right) if isinstance(left, int) else (right, left)
        if isinstance(times, int) and isinstance(value, str | bytes | list | tuple):
            _repeat(value, max(times, 0))
    elif operator == "%" and isinstance(left, str | bytes):
        _check_format(left if isinstance(left, str) else left.decode("latin-1"), right)
    elif operator == "+" and isinstance(left, str | bytes) and isinstance(right, str | bytes):
        budget().make(len(left) + len(right))


def _check_integers(operator: str, left: int, right: int) -> None:
    bits = 0
    if operator == "*":
        bits = left.bit_length() + right.bit_length()
    elif operator == "**":
        bits = left.bit_length() * max(right, 0)
    if bits > MOST_BITS:
        raise OverBudgetError(f"the template makes an integer of over {MOST_BITS} bits")


def _repeat(value: Any, times: int) -> None:
    size = len(value) * times
    budget().make(size) if isinstance(value, str | bytes) else budget().spend(size)


def _check_format(text: str, values: Any) -> None:
    fields = _FORMAT.findall(text)
    for width, precision in fields:
        if "*" in (width, precision):
            raise OverBudgetError("the template takes a format's width from a value; write it out")
        check_width(f"{width} {precision}")
    one = _letters(values)
    budget().make(len(text) + (one * len(fields) if isinstance(values, Mapping) else one))


def _letters(values: Any) -> int:
    """Number of characters of strings, one level deep."""
    if isinstance(values, str | bytes):
        return len(values)
    items = values.values() if isinstance(values, dict) else values
    return sum(map(_count, items)) if isinstance(items, CONTAINERS) else 0


def _count(value: Any) -> int:
    """Length of a text or a container; 1 for anything else."""
    sized: tuple[type[Any], ...] = (str, bytes, range, dict, *CONTAINERS)
    return len(value) if isinstance(value, sized) else 1


# --- filters ------------------------------------------------------------------------------------


def check_filter(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Charge for the result of a filter or a test.

    Args:
        name: Name of the filter or test.
        args: The value, followed by the other positional arguments.
        kwargs: Keyword arguments.

    Raises:
        OverBudgetError: The result would exceed the budget.
    """
    if not args:
        return
    value, more = args[0], [*args[1:], *kwargs.values()]
    own = budget()
    before = own.steps
    own.look(value)
    own.spend((before - own.steps) * _SLOW.get(name, 0))
    for path in more:
        if isinstance(path, str):  # attribute="a.b.c" walks that path for each item
            own.spend(path.count(".") * _count(value))
    check = _FILTERS.get(name)
    if check is not None:
        check(value, args[1:], kwargs)


def _format_filter(value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    _check_format(str(value), kwargs or tuple(args))


def _narrow_filter(value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    for number in (*args, *kwargs.values()):
        _narrow(number)


def _brief_filter(value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Strings that are inserted at every line, link or attribute."""
    for text in (*args, *kwargs.values()):
        _narrow(_count(text))


def _round_filter(value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    for number in (*args, *kwargs.values()):
        _narrow(number, 300)


def _indent_filter(value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    width = args[0] if args else kwargs.get("width", 4)
    _narrow(width)
    each = len(width) if isinstance(width, str) else width if isinstance(width, int) else 0
    text = str(value)
    budget().make(len(text) + text.count("\n") * max(each, 0))


def _replace_filter(value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    named = dict(zip(("old", "new"), args, strict=False)) | dict(kwargs)
    _replacing(str(value), named.get("old", ""), named.get("new", ""))


def _join_filter(value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    _joining(args[0] if args else kwargs.get("d", ""), value)


def _sum_filter(value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    start = args[1] if len(args) > 1 else kwargs.get("start", 0)
    if not isinstance(start, int | float):
        raise OverBudgetError("the template sums values that are not numbers; sum numbers only")


_Check = Callable[[Any, Sequence[Any], Mapping[str, Any]], None]
_FILTERS: dict[str, _Check] = {
    "batch": _narrow_filter,
    "center": _narrow_filter,
    "format": _format_filter,
    "indent": _indent_filter,
    "join": _join_filter,
    "replace": _replace_filter,
    "round": _round_filter,
    "slice": _narrow_filter,
    "sum": _sum_filter,
    "tojson": _narrow_filter,
    "urlize": _brief_filter,
    "wordwrap": _brief_filter,
}


# --- methods ------------------------------------------------------------------------------------


def check_method(owner: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Charge for the result of a method of a string or a number.

    Raises:
        OverBudgetError: The result would exceed the budget.
    """
    given = [*args, *kwargs.values()]
    if isinstance(owner, int) and name == "to_bytes":
        _narrow_filter(owner, args, kwargs)
    if not isinstance(owner, str | bytes):
        return
    if name in ("ljust", "rjust", "center", "zfill", "expandtabs"):
        _narrow_filter(owner, args, kwargs)
    if name == "expandtabs":
        tabs = owner.count("\t") if isinstance(owner, str) else owner.count(b"\t")
        width = next((n for n in given if isinstance(n, int)), 8)
        budget().make(len(owner) + tabs * max(width, 0))
    elif name == "replace" and len(args) > 1:
        _replacing(owner, args[0], args[1])
    elif name == "join" and args:
        _joining(owner, args[0])
    elif name == "translate" and args and isinstance(args[0], Mapping):
        longest = max((len(v) for v in args[0].values() if isinstance(v, str)), default=1)
        budget().make(len(owner) * longest)
    elif name in ("encode", "decode"):
        _check_encoding(given)
    elif args and isinstance(args[0], str | bytes):  # a search
        backwards = name in ("rfind", "rindex", "rpartition", "rsplit")
        budget().spend(len(owner) * min(len(args[0]), 10**9 if backwards else 100) // 64)


def _check_encoding(given: Sequence[Any]) -> None:
    if given and str(given[0]).lower().replace("_", "-") not in ENCODINGS:
        known = ", ".join(sorted(ENCODINGS))
        raise OverBudgetError(f"the template encodes as {str(given[0])[:20]!r}; allowed: {known}")


def _replacing(text: str | bytes, old: Any, new: Any) -> None:
    if not isinstance(old, str | bytes) or not isinstance(new, str | bytes):
        return
    places = len(text) + 1 if not old else len(text) // len(old)
    budget().make(len(text) + places * len(new) if len(new) > len(old) else len(text))


def _joining(separator: Any, values: Any) -> None:
    budget().make(_count(values) * _count(separator) + _letters(values))
