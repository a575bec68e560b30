"""A graph file: its plain data, and the line number of each part of the graph."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from latentmas.errors import DataError, GraphError, Problem, closest
from latentmas.safe_data import compose_yaml, decode_text, parse_json, parse_yaml, read_limited
from latentmas.spec.files import YAML_SUFFIXES, prompt_beside

__all__ = ["GraphFile"]

LARGEST_YAML = 2 * 2**20
LARGEST_JSON = 16 * 2**20
_PROMPT_CODES = frozenset({"LM103", "LM301", "LM302", "LM303"})
_KEY_OF_CODE = {"LM101": "backbone", "LM118": "tools", "LM119": "tools"}
_KEYS_OF_GRAPH = {"LM111": "output", "LM113": "rounds", "LM116": "agents"}
_EDGE = re.compile(r"edge (?P<source>.*?)->(?P<target>[^.]*)(?:\.(?P<slot>.*))?")


class GraphFile:
    """A graph file on disk, read once.

    The text is kept so that problems found later, at compile time, can still name a line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def text(self) -> str:
        """The file's text.

        Raises:
            DataError: The file cannot be read.
            GraphError: The file is too large or is not UTF-8.
        """
        most = LARGEST_YAML if self.path.suffix.lower() in YAML_SUFFIXES else LARGEST_JSON
        try:
            raw = read_limited(self.path, most)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError(f"cannot read graph file {str(self.path)!r}: {reason}") from error
        except ValueError as error:
            raise self._unreadable(error) from error
        try:
            return decode_text(raw)
        except ValueError as error:
            raise self._unreadable(error) from error

    def data(self) -> dict[str, Any]:
        """The file's content as plain data, before validation.

        Raises:
            DataError: The file cannot be read.
            GraphError: The file cannot be parsed or does not hold a mapping.
        """
        yaml_file = self.path.suffix.lower() in YAML_SUFFIXES
        text = self.text
        try:
            data = parse_yaml(text) if yaml_file else parse_json(text)
        except ValueError as error:
            where = " ".join(str(error).replace('in "<unicode string>", ', "").split())
            message, hint = f"cannot be parsed: {where}", "correct the syntax at that position"
            raise GraphError([Problem("LM100", str(self.path), message, hint)]) from error
        if not isinstance(data, dict):
            message = f"holds {type(data).__name__}, not a mapping"
            hint = "start with `name:` and `agents:`"
            raise GraphError([Problem("LM100", str(self.path), message, hint)])
        return data

    def _unreadable(self, error: ValueError) -> GraphError:
        message, _, hint = f"cannot be read: {error}".partition("; ")
        hint = hint or "keep data in separate files"
        return GraphError([Problem("LM100", str(self.path), message, hint)])

    def locate(self, error: GraphError) -> GraphError:
        """The error with a line number for each problem and fixes phrased for the file."""
        located = [problem.in_file(self._location(problem)) for problem in error.problems]
        return GraphError(located, error.graph)

    def _location(self, problem: Problem) -> str:
        """`file:line` of a problem's subject; only the file if the line is unknown."""
        if problem.path == str(self.path):
            return ""
        agent = problem.path.removeprefix("agent ")
        declared = self._find("agents", name=agent) if problem.path != agent else ()
        prompt = self._prompt_of(problem, declared)
        if prompt:
            return prompt
        line = self._line(self._place(problem, declared))
        return f"{self.path}:{line}" if line else str(self.path)

    def _prompt_of(self, problem: Problem, agent: tuple[str | int, ...]) -> str:
        """Location of a problem inside a prompt, if the prompt is in its own file or in a block."""
        if not agent or problem.code not in _PROMPT_CODES:
            return ""
        file = _scalar(self._node((*agent, "prompt_file")))
        if file:
            line = _line_in(self._prompt_text(file), problem.message)
            return str(self.path.parent / file) + (f":{line}" if line else "")
        node = self._node((*agent, "prompt"))
        if not isinstance(node, yaml.ScalarNode) or node.style != "|":
            return ""
        line = _line_in(node.value, problem.message)
        return f"{self.path}:{node.start_mark.line + 1 + line}" if line else ""

    def _prompt_text(self, name: str) -> str:
        """Text of a prompt file; empty if unreadable, which is reported separately."""
        try:
            return prompt_beside(self.path.parent, name)
        except (OSError, ValueError):
            return ""

    def _place(self, problem: Problem, agent: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """Path (keys and indices) to the subject of a problem."""
        if problem.code == "LM110":  # point at the edge that the suggested fix changes
            names = problem.message.rpartition(": ")[2].split(" → ")
            return self._edge(names[-2], names[-1], None)
        kind, _, name = problem.path.rpartition(" ")
        edge = _EDGE.fullmatch(problem.path)
        if agent:
            own = "prompt" if problem.code in _PROMPT_CODES else _KEY_OF_CODE.get(problem.code)
            own = "system" if "of the system prompt" in problem.message else own
            key = own or next((k for k in self._keys(agent) if k in problem.message), "")
            return (*agent, key) if key else agent
        if edge is not None:
            return self._edge(edge["source"], edge["target"], edge["slot"])
        if kind == "inner link of":
            return (*self._find("agents", name=name), "inner")
        if kind == "text source":
            return self._find("text_sources", name=name)
        if kind == "backbone":
            return ("backbones", name)
        if kind == "input":
            return ("inputs", next(iter(self._positions("inputs", name)), 0))
        if problem.path.startswith("part "):
            return self._find("agents", name=problem.path[5:].split(", ")[0])
        if problem.path == "graph":
            return (_KEYS_OF_GRAPH.get(problem.code, "name"),)
        return self._split(problem.path)

    @cached_property
    def _root(self) -> yaml.Node | None:
        return compose_yaml(self.text)  # JSON is a subset of YAML, except for tabs

    def _node(self, place: tuple[str | int, ...]) -> yaml.Node | None:
        node = self._root
        for part in place:
            node = next((value for key, value in _items(node) if _same(key, part)), None)
        return node

    def _line(self, place: tuple[str | int, ...]) -> int | None:
        """Line of the deepest part of a path that exists in the file; None if no part does."""
        node, line = self._root, None
        for part in place:
            items = list(_items(node))
            found = [item for item in items if _same(item[0], part)]
            if not found and isinstance(part, str):
                guess = closest(part, [_scalar(key) for key, _ in items if not _is_number(key)])
                found = [item for item in items if guess and _same(item[0], guess)]
            if not found:
                return line
            key, node = found[0]
            line = (node if _is_number(key) else key).start_mark.line + 1
        return line

    def _keys(self, place: tuple[str | int, ...]) -> list[str]:
        return [_scalar(key) for key, _ in _items(self._node(place))]

    def _positions(self, part: str, text: str) -> list[int]:
        return [i for i, one in _items(self._node((part,))) if _scalar(one) == text]

    def _find(self, part: str, **fields: str | None) -> tuple[str | int, ...]:
        """Path of the first list entry whose fields have these values; () if there is none.

        If there is none, an entry with the values under other keys, possibly misspelt, is used.
        """
        wanted = {value for value in fields.values() if value is not None}
        second: tuple[str | int, ...] = ()
        for i, entry in _items(self._node((part,))):
            told = {_scalar(key): _scalar(value) for key, value in _items(entry)}
            if all(told.get(key) == value for key, value in fields.items()):
                return (part, i)
            if not second and fields.keys() - told.keys() and wanted <= set(told.values()):
                second = (part, i)
        return second

    def _edge(self, source: str, target: str, slot: str | None) -> tuple[str | int, ...]:
        exact = self._find("edges", source=source, target=target, slot=slot)
        unnamed = self._find("edges", source=source, target=target, slot=None)
        return exact or unnamed or self._find("edges", source=source, target=target)

    def _split(self, path: str) -> tuple[str | int, ...]:
        """Keys of a dotted path; a key may itself contain dots, as model names do."""
        parts, place = path.split("."), list[str | int]()
        while parts:
            mapping = isinstance(self._node(tuple(place)), yaml.MappingNode)
            keys = self._keys(tuple(place)) if mapping else []
            joined = (n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in keys)
            count = next(joined, 1)
            key = ".".join(parts[:count])
            place.append(int(key) if not keys and key.isdigit() else key)
            parts = parts[count:]
        return tuple(place)


def _items(node: yaml.Node | None) -> Iterator[tuple[Any, yaml.Node]]:
    """Entries of a node: (key node, value) for a mapping, (index, value) for a sequence."""
    if isinstance(node, yaml.MappingNode):
        yield from node.value
    elif isinstance(node, yaml.SequenceNode):
        yield from enumerate(node.value)


def _line_in(prompt: str, message: str) -> int | None:
    """Line of a prompt that a message refers to, by number or by the variable it names."""
    named = re.match(r"line (\d+):", message)
    if named:
        return int(named[1])
    name = re.search(r"\{\{ (\w+) \}\}|slot '(\w+)'", message)
    if name is None:
        return None
    mention = re.compile(rf"\{{[{{%][^}}]*\b{name[1] or name[2]}\b")
    lines = enumerate(prompt.splitlines(), start=1)
    return next((number for number, line in lines if mention.search(line)), None)


def _is_number(key: Any) -> bool:
    return isinstance(key, int)


def _same(key: Any, part: str | int) -> bool:
    return key == part if _is_number(key) else _scalar(key) == str(part)


def _scalar(node: Any) -> str:
    """Text of a scalar node; empty for other nodes."""
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""
