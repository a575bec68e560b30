"""Parses untrusted JSON and YAML text within limits.

Size, nesting depth and number of items (with YAML aliases expanded) are checked on the text or
during parsing, so that a small file cannot take much memory or time. Every failure is a one-line
`ValueError`.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml

__all__ = [
    "LARGEST_INT",
    "compose_yaml",
    "decode_text",
    "parse_json",
    "parse_yaml",
    "read_limited",
    "unique_keys",
]

Numbers = Literal["plain", "nan", "any"]
DEEPEST = 100
MOST_ITEMS = 200_000
"""Maximum number of brackets, braces, commas and colons of a JSON text."""
MOST_NODES = 50_000
"""Maximum number of nodes of a YAML text, with aliases expanded."""
LARGEST_INT = 2**63
LONGEST_NUMBER = 60
"""Maximum length of a number in YAML; parsing `1:1:1:…` takes quadratic time."""

_JSON_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{},:]', re.DOTALL)
# Exceptions that PyYAML raises on bad tags and unexpected nodes, besides its own errors.
_YAML_FAILURES = (
    *(yaml.YAMLError, RecursionError, TypeError, KeyError, AttributeError, IndexError),
    *(ValueError, OverflowError),
)


def read_limited(path: Path, most: int) -> bytes:
    """Content of a file of at most `most` bytes.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is larger.
    """
    with path.open("rb") as file:
        large = os.fstat(file.fileno()).st_size > most
        raw = b"" if large else file.read(most + 1)
    if large or len(raw) > most:
        raise ValueError(f"it is larger than {most:,} bytes, the size limit of such files")
    return raw


def decode_text(raw: bytes) -> str:
    """Text of UTF-8 bytes, without a byte order mark.

    Raises:
        ValueError: The bytes are not UTF-8; the message names the line.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(
            f"it is not UTF-8 text: byte 0x{raw[error.start]:02x} on line {line}; save it as UTF-8"
        ) from error


def parse_json(
    text: str | bytes, *, most_items: int = MOST_ITEMS, numbers: Numbers = "plain"
) -> Any:
    """Plain data of a JSON text without duplicate keys.

    Args:
        text: JSON text; bytes must be UTF-8.
        most_items: Maximum number of brackets, braces, commas and colons outside of strings.
        numbers: `"nan"` accepts NaN and infinity as Python writes them; `"any"` accepts integers
            beyond 64 bits as well.

    Raises:
        ValueError: The text is not JSON or exceeds a limit.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    _check_structure(raw, most_items)
    hooks: dict[str, Any] = {} if numbers == "any" else {"parse_int": _integer}
    if numbers == "plain":
        hooks |= {"parse_float": _finite, "parse_constant": _no_constant}
    try:
        whole = text if isinstance(text, str) else raw.decode("utf-8")
        return json.loads(whole, object_pairs_hook=unique_keys, **hooks)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _check_structure(raw: bytes, most_items: int) -> None:
    depth = 0
    for count, found in enumerate(_JSON_TOKEN.finditer(raw)):
        first = raw[found.start()]
        depth += (first in b"[{") - (first in b"]}")
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        if count > most_items:
            raise ValueError(f"it holds more than {most_items:,} items")


def unique_keys(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; a duplicate key is a ValueError."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"duplicate key {key!r:.80}")
        found[key] = value
    return found


def _integer(digits: str) -> int:
    value = int(digits) if len(digits) <= LONGEST_NUMBER else LARGEST_INT
    if not -LARGEST_INT <= value < LARGEST_INT:
        raise ValueError(f"the integer {digits:.20}… is beyond 64 bits")
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits:.20} is beyond what a float can hold")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


# --- YAML ---------------------------------------------------------------------------------------


def parse_yaml(text: str, *, anchored: str = "anything") -> Any:
    """Plain data of a YAML text: `SafeLoader`'s types, without duplicate keys.

    Args:
        text: One YAML document.
        anchored: `"texts"` rejects aliases of lists and mappings.

    Raises:
        ValueError: The text is not such YAML or exceeds a limit.
    """
    try:
        return yaml.load(text, Loader=_TextAnchors if anchored == "texts" else _Loader)
    except _YAML_FAILURES as error:
        found = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(found) from error


def compose_yaml(text: str) -> yaml.Node | None:
    """The nodes of a YAML text, with line numbers; None if `parse_yaml` would reject it."""
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except _YAML_FAILURES:
        return None
    return node


class _Loader(yaml.SafeLoader):
    """SafeLoader that counts nodes and rejects duplicate keys."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._count = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._count += 1
        if self._count > MOST_NODES:
            raise yaml.composer.ComposerError(None, None, f"more than {MOST_NODES:,} values")
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"nested more than {DEEPEST} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _written_out(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key!r:.80}", key_node.start_mark
                )
            seen.add(key) if isinstance(key, str) else None
        return super().construct_mapping(node, deep=deep)

    def number(self, node: yaml.ScalarNode) -> int | float:
        """An integer or a float."""
        if len(node.value) > LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value):,} characters", node.start_mark
            )
        construct = getattr(self, f"construct_yaml_{node.tag.rpartition(':')[2]}")
        value: int | float = construct(node)
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.number)


def _written_out(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Number of nodes in the subtree of `node`, with aliases expanded."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in sizes:
        size = sizes[id(node)]
        if size == 0:
            raise yaml.composer.ComposerError(None, None, "an anchor that contains itself")
        return size
    sizes[id(node)] = 0
    below = (part for item in node.value for part in (item if isinstance(item, tuple) else [item]))
    total = 1
    for part in below:
        total += _written_out(part, sizes)
        if total > MOST_NODES:
            raise yaml.composer.ComposerError(
                None, None, f"more than {MOST_NODES:,} values with its aliases expanded"
            )
    sizes[id(node)] = total
    return total


class _TextAnchors(_Loader):
    """Loader that accepts anchors on strings only."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if alias and not isinstance(node, yaml.ScalarNode):
            mark = getattr(node, "start_mark", None)
            raise yaml.composer.ComposerError(None, None, "only strings may be anchored", mark)
        return node
