"""Graph files: YAML or JSON on disk, with prompts and model folders beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from latentmas.atomic import write_text_atomically
from latentmas.errors import DataError, Problem
from latentmas.safe_data import decode_text, read_limited

__all__ = ["prompt_beside", "prompt_file", "resolve_files", "write_graph_file"]

YAML_SUFFIXES = (".yaml", ".yml")
GRAPH_SUFFIXES = (*YAML_SUFFIXES, ".json")
LARGEST_PROMPT = 2**20


def prompt_file(path: str | Path) -> str:
    """The text of a prompt template stored in its own file.

    Raises:
        DataError: The file cannot be read as UTF-8 text or exceeds the size limit of prompts.
    """
    try:
        return _prompt_text(Path(path))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read prompt file {str(path)!r}: {error}") from error


def _prompt_text(path: Path) -> str:
    text = decode_text(read_limited(path, LARGEST_PROMPT))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def write_graph_file(path: Path, data: dict[str, Any]) -> Path:
    """Write plain data as YAML or JSON, atomically."""
    if path.suffix.lower() in YAML_SUFFIXES:
        text = yaml.dump(data, Dumper=_BlockDumper, sort_keys=False, allow_unicode=True, width=100)
    else:
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    return write_text_atomically(path, text)


def resolve_files(data: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[Problem]]:
    """Plain data of a graph file with its files read and its `./` sources resolved.

    Returns:
        The data, and a problem for each unreadable file, whose text is left empty.
    """
    problems: list[Problem] = []
    agents = data.get("agents")
    if isinstance(agents, list):
        data["agents"] = [_with_prompt(agent, folder, problems) for agent in agents]
    backbones = data.get("backbones")
    if isinstance(backbones, dict):
        data["backbones"] = {
            k: _with_template(_with_sources(b, folder), k, folder, problems)
            for k, b in backbones.items()
        }
    return data, problems


def _with_prompt(agent: Any, folder: Path, problems: list[Problem]) -> Any:
    if not isinstance(agent, dict) or "prompt_file" not in agent or "prompt" in agent:
        return agent
    text, name = "", str(agent["prompt_file"])
    try:
        text = prompt_beside(folder, name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"prompt_file {name!r} cannot be read: {reason}"
        hint = "name a text file beside the graph file, or write the text as `prompt`"
        problems.append(Problem("LM100", f"agent {agent.get('name', '?')}", message, hint))
    rest = {key: value for key, value in agent.items() if key != "prompt_file"}
    return rest | {"prompt": text}


def prompt_beside(folder: Path, name: str) -> str:
    """Text of a prompt file; OSError or ValueError if it is not a file inside the folder."""
    try:
        path = (folder / name).resolve()
    except RuntimeError as error:
        raise ValueError("its symbolic links form a loop") from error
    if not path.is_relative_to(folder.resolve()):
        raise ValueError("it is outside the folder of the graph file")
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    return _prompt_text(path)


def _with_sources(backbone: Any, folder: Path) -> Any:
    if isinstance(backbone, str):
        backbone = {"source": backbone}
    if not isinstance(backbone, dict):
        return backbone
    beside = {
        key: os.path.abspath(folder / backbone[key])  # noqa: PTH100
        for key in ("source", "tokenizer", "adapter")
        if str(backbone.get(key, "")).startswith(("./", "../"))
    }
    return backbone | beside


def _with_template(backbone: Any, key: str, folder: Path, problems: list[Problem]) -> Any:
    name = backbone.get("chat_template_file") if isinstance(backbone, dict) else None
    if name is None or "chat_template" in backbone:
        return backbone
    rest = {field: value for field, value in backbone.items() if field != "chat_template_file"}
    try:
        return rest | {"chat_template": prompt_beside(folder, str(name))}
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"chat_template_file {str(name)!r} cannot be read: {reason}"
        hint = "name a text file beside the graph file, or write the text as `chat_template`"
        problems.append(Problem("LM100", f"backbone {key}", message, hint))
    return rest


class _BlockDumper(yaml.SafeDumper):
    """SafeDumper that writes multi-line strings as blocks."""


def _block_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    odd = any(not letter.isprintable() and letter != "\n" for letter in text)
    style = '"' if odd else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_BlockDumper.add_representer(str, _block_text)
