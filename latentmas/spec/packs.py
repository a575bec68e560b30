"""Prompt packs: the prompts of a team in one file of their own, JSON or YAML.

```yaml
planner: "Plan: {{ question }}"
solver:
  system: You solve.
  prompt: |
    {{ plan }}
    {{ question }}
```
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from latentmas.errors import DataError, closest
from latentmas.spec._files import (
    _YAML_FAILURES,
    YAML_SUFFIXES,
    _UniqueKeyLoader,
    write_graph_file,
)

__all__ = ["read_prompt_pack", "write_prompt_pack"]

FIELDS = ("prompt", "system")
MOST_BYTES = 4 * 2**20
"""Largest file that is read."""


def read_prompt_pack(path: str | Path) -> dict[str, dict[str, str]]:
    """Agent → its `prompt`, its `system` turn, or both.

    In the file an agent has a text, which is its prompt, or a mapping with `prompt` and `system`.

    Args:
        path: `.yaml` or `.yml` is read as YAML, anything else as JSON.

    Raises:
        DataError: the file cannot be read, or is no prompt pack; with the agent and the field.
    """
    path = Path(path)
    return _checked(path, _parsed(path, _text(path)))


def write_prompt_pack(path: str | Path, pack: Mapping[str, str | Mapping[str, str]]) -> Path:
    """Write a prompt pack, whole or not at all.

    Args:
        path: `.yaml` or `.yml` is written as YAML with texts as blocks, anything else as JSON.
        pack: agent → prompt, or `{"system": …, "prompt": …}`.

    Raises:
        DataError: `pack` is no prompt pack, or holds text that cannot be encoded.
        OSError: the file cannot be written.
    """
    path = Path(path)
    checked = _checked(path, pack)
    try:
        return write_graph_file(path, checked)
    except UnicodeError as error:
        raise DataError(f"prompt pack {str(path)!r} cannot be written: {error}") from error


def _text(path: Path) -> str:
    where = f"prompt pack {str(path)!r}"
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        text = raw.decode("utf-8-sig") if len(raw) <= MOST_BYTES else None
    except (OSError, ValueError) as error:
        raise DataError(f"{where} cannot be read: {error}") from error
    if text is None:
        raise DataError(f"{where} is larger than {MOST_BYTES:,} bytes; that is no prompt pack")
    return text


def _parsed(path: Path, text: str) -> Any:
    try:
        if path.suffix.lower() in YAML_SUFFIXES:
            return yaml.load(text, Loader=_PackLoader)
        return json.loads(text, object_pairs_hook=_unique)
    except (*_YAML_FAILURES, ValueError) as error:
        found = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"prompt pack {str(path)!r} cannot be parsed: {found}; "
            "mend the syntax at the place named"
        ) from error


def _checked(path: Path, data: Any) -> dict[str, dict[str, str]]:
    """Plain data as a pack, every agent with a mapping."""
    where = f"prompt pack {str(path)!r}"
    if not isinstance(data, Mapping) or not data:
        found = "is empty" if not data else f"holds {_kind(data)}, not a mapping"
        raise DataError(f"{where} {found}; write `agent: prompt`, one for each agent")
    for agent in data:
        if not isinstance(agent, str) or not agent:
            raise DataError(f"{where}: an agent's name is text, found {agent!r}; put it in quotes")
    return {agent: _agent(f"{where}, agent {agent!r}", own) for agent, own in data.items()}


def _agent(where: str, own: Any) -> dict[str, str]:
    if isinstance(own, str):
        return {"prompt": own}
    if not isinstance(own, Mapping) or not own:
        found = "an empty mapping" if isinstance(own, Mapping) else _kind(own)
        raise DataError(
            f"{where}: found {found}; an agent has a text, or a mapping with prompt and system"
        )
    for field, text in own.items():
        if field not in FIELDS:
            guess = closest(str(field), FIELDS)
            hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(FIELDS)}"
            raise DataError(f"{where}: unknown field {field!r}; {hint}")
        if not isinstance(text, str):
            raise DataError(
                f"{where}, field {field!r}: found {_kind(text)}, not text; put it in quotes, "
                "or leave the field out"
            )
    return dict(own)


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key twice is an error."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} stands twice")
        found[key] = value
    return found


class _PackLoader(_UniqueKeyLoader):
    """Takes anchors on texts only, so that a small file stays small in memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if alias and not isinstance(node, yaml.ScalarNode):
            mark = getattr(node, "start_mark", None)
            raise yaml.composer.ComposerError(None, None, "only texts may be anchored", mark)
        return node
