"""Prompt packs: the prompts of a team in a separate JSON or YAML file.

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

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentmas.errors import DataError, closest
from latentmas.safe_data import decode_text, parse_json, parse_yaml, read_limited
from latentmas.spec import YAML_SUFFIXES, write_graph_file

__all__ = ["read_prompt_pack", "write_prompt_pack"]

FIELDS = ("prompt", "system")
MOST_BYTES = 2 * 2**20
"""Maximum size of a file, in bytes."""


def read_prompt_pack(path: str | Path) -> dict[str, dict[str, str]]:
    """Agent → its `prompt`, its `system` turn, or both.

    In the file, an agent has a string (its prompt) or a mapping with `prompt` and `system`.

    Args:
        path: Path of the file: `.yaml` and `.yml` are read as YAML, anything else as JSON.

    Raises:
        DataError: The file cannot be read or is not a prompt pack; names the agent and the field.
    """
    path = Path(path)
    return _checked(path, _parsed(path, _text(path)))


def write_prompt_pack(path: str | Path, pack: Mapping[str, str | Mapping[str, str]]) -> Path:
    """Write a prompt pack atomically.

    Args:
        path: Path of the file: `.yaml` and `.yml` are written as YAML with block strings,
        anything else as JSON.
        pack: Agent → prompt, or `{"system": …, "prompt": …}`.

    Raises:
        DataError: `pack` is not a prompt pack, contains text that cannot be encoded, or cannot
            be written to `path`.
    """
    path = Path(path)
    checked = _checked(path, pack)
    try:
        return write_graph_file(path, checked)
    except UnicodeError as error:
        raise DataError(f"prompt pack {str(path)!r} cannot be written: {error}") from error


def _text(path: Path) -> str:
    try:
        return decode_text(read_limited(path, MOST_BYTES))
    except (OSError, ValueError) as error:
        raise DataError(f"prompt pack {str(path)!r} cannot be read: {error}") from error


def _parsed(path: Path, text: str) -> Any:
    try:
        if path.suffix.lower() in YAML_SUFFIXES:
            return parse_yaml(text, anchored="texts")
        return parse_json(text)
    except ValueError as error:
        raise DataError(
            f"prompt pack {str(path)!r} cannot be parsed: {error}; "
            "correct the syntax at that position"
        ) from error


def _checked(path: Path, data: Any) -> dict[str, dict[str, str]]:
    """Convert plain data to a pack in which every agent has a mapping."""
    where = f"prompt pack {str(path)!r}"
    if not isinstance(data, Mapping) or not data:
        found = "is empty" if not data else f"holds {_kind(data)}, not a mapping"
        raise DataError(f"{where} {found}; write `agent: prompt`, one for each agent")
    for agent in data:
        if not isinstance(agent, str) or not agent:
            raise DataError(
                f"{where}: an agent's name must be a string, found {agent!r}; put it in quotes"
            )
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
