"""Values as text: what goes into the sandbox, and what comes out of it.

Values are written as JSON. None, booleans, texts, floats and small integers stand for themselves;
every other value is a list that begins with its kind, such as `["t", 1, 2]` for the tuple (1, 2).
They are read back without executing anything. The text of this module runs in the sandbox as well,
so it uses the standard library alone.
"""

import sys
from typing import Any

LARGEST_PLAIN = 2**53
LONGEST_REPR = 1000
LETTERS = 16
"""Letters of a text that count as much as one value."""
MANY_KEYS, MOST_ALIKE = 1000, 100


class Array:
    """A numpy array: type of its elements, shape, and elements in row-major order."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, dtype: str, shape: list[int], items: list[Any]) -> None:
        self.dtype, self.shape, self.items = dtype, shape, items

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Array) and self.shape == other.shape
        return same and self.items == other.items  # type: ignore[attr-defined]


class Opaque:
    """A value of any other type, of which only the type and the representation are known."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, kind: str, shown: str) -> None:
        self.kind, self.shown = kind, shown

    def __eq__(self, other: object) -> bool:
        # A representation with an address says nothing of the value.
        known = isinstance(other, Opaque) and " at 0x" not in self.shown
        return known and (self.kind, self.shown) == (other.kind, other.shown)  # type: ignore[attr-defined]


class TooLargeError(Exception):
    """A value holds more than may be written down."""


class Budget:
    """How much may still be written down: values, and texts by their length."""

    def __init__(self, left: float) -> None:
        self.left = left

    def spend(self, values: int) -> None:
        """Count values; TooLargeError beyond the limit."""
        self.left -= values
        if self.left < 0:
            raise TooLargeError("the outputs are too large")


def encode(value: Any, budget: Budget | None = None) -> Any:
    """Plain JSON for a value, from which `decode` makes an equal one.

    Subclasses are written as the built-in type that they extend, and numpy's scalars as Python's.

    Raises:
        TooLargeError: The value passes the budget.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        value = value.item()
    if budget is not None:
        sized = isinstance(value, str | bytes | bytearray)
        budget.spend(1 + len(value) // LETTERS if sized else 1)
    if value is None or isinstance(value, bool | str | float):
        return value
    for kind, name, parts in CONTAINERS:
        if isinstance(value, kind):
            return [name, *(encode(part, budget) for part in parts(value))]
    if numpy is not None and isinstance(value, numpy.ndarray):
        items = (encode(item, budget) for item in value.ravel().tolist())
        return ["a", value.dtype.str, list(value.shape), *items]
    return _encode_other(value)


def _encode_other(value: Any) -> Any:
    if isinstance(value, int):
        return value if -LARGEST_PLAIN < value < LARGEST_PLAIN else ["i", hex(value)]
    if isinstance(value, complex):
        return ["c", value.real, value.imag]
    if isinstance(value, bytes | bytearray):
        return ["b", value.hex()]
    kind = type(value)
    return ["o", f"{kind.__module__}.{kind.__qualname__}", repr(value)[:LONGEST_REPR]]


CONTAINERS: Any = (
    (list, "l", iter),
    (tuple, "t", iter),
    ((set, frozenset), "s", iter),
    (dict, "d", lambda value: (part for pair in value.items() for part in pair)),
)


def decode(tree: Any) -> Any:
    """The value that `encode` wrote; it is made of built-in types, `Array` and `Opaque` alone.

    Raises:
        ValueError: Nothing that `encode` writes looks like that.
    """
    if tree is None or isinstance(tree, bool | str | int | float):
        return tree
    if not isinstance(tree, list) or not tree:
        raise ValueError(f"a value cannot be written as {tree!r:.40}")
    kind, *parts = tree
    try:
        return READERS[kind](parts)
    except (TypeError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"a value of kind {kind!r:.20} is malformed: {error!r:.80}") from error


def spread(keys: list[Any]) -> list[Any]:
    """The keys themselves, unless they were chosen so that a table of them takes quadratic time.

    Raises:
        ValueError: Too many keys have the same hash value.
    """
    if len(keys) > MANY_KEYS:
        counts: dict[int, int] = {}
        for key in keys:
            counts[hash(key)] = counts.get(hash(key), 0) + 1
        if max(counts.values()) > MOST_ALIKE:
            raise ValueError("too many keys have the same hash value")
    return keys


def _dictionary(parts: list[Any]) -> dict[Any, Any]:
    items = list(map(decode, parts))
    return dict(zip(spread(items[::2]), items[1::2], strict=True))


def _array(parts: list[Any]) -> Array:
    dtype, shape, *items = parts
    count = 1
    for size in shape:
        count *= size
    if not isinstance(dtype, str) or not isinstance(shape, list) or count != len(items):
        raise ValueError("an array has as many elements as its shape says")
    return Array(dtype, shape, list(map(decode, items)))


READERS: dict[str, Any] = {
    "i": lambda parts: int(parts[0], 16),
    "c": lambda parts: complex(float(parts[0]), float(parts[1])),
    "b": lambda parts: bytes.fromhex(parts[0]),
    "l": lambda parts: list(map(decode, parts)),
    "t": lambda parts: tuple(map(decode, parts)),
    "s": lambda parts: frozenset(spread(list(map(decode, parts)))),
    "d": _dictionary,
    "a": _array,
    "o": lambda parts: Opaque(str(parts[0]), str(parts[1])),
}
