"""Write docs/cli-reference.md from the program: `python tests/golden/cli_reference.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from latentmas.cli.app import app

PAGE = Path(__file__).parent.parent.parent / "docs" / "cli-reference.md"
HEAD = """\
# Command reference

Made from the program's own help; `latentmas COMMAND --help` prints the same. What the commands
have in common is on [the page before](cli.md).
"""


def render() -> str:
    """The page."""
    group: Any = typer.main.get_command(app)
    parts = [HEAD, f"## latentmas\n\n{group.help}\n\n{_table(group)}"]
    parts += [_section(f"latentmas {name}", command) for name, command in _leaves(group)]
    return "\n".join(parts)


def _leaves(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "commands"):
            yield from _leaves(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _section(name: str, command: Any) -> str:
    usage = " ".join(p.metavar or p.name.upper() for p in command.params if _is_argument(p))
    example = command.epilog.removeprefix("Example: ")
    text = "\n\n".join(" ".join(part.split()) for part in command.help.split("\n\n"))
    shown = f"{name.removesuffix(f' {usage}')} {usage}".strip()
    return (
        f"## {name}\n\n{text}\n\n```text\n{shown} [OPTIONS]\n```\n\n{_table(command)}\n"
        f"```\n{example}\n```\n"
    )


def _table(command: Any) -> str:
    rows = [_row(p) for p in command.params if p.name not in ("help",)]
    return "\n".join(["| | meaning | default |", "|---|---|---|", *rows]) + "\n"


def _row(param: Any) -> str:
    name = param.metavar or param.name.upper()
    if not _is_argument(param):
        flag = " ".join(f"`{opt}`" for opt in [*param.opts, *param.secondary_opts])
        name = f"{flag} {param.metavar}" if param.metavar and not param.is_flag else flag
    else:
        name = f"`{name}`"
    text = " ".join((param.help or "").split()).replace("|", "\\|")
    return f"| {name} | {text} | {_default(param)} |"


def _default(param: Any) -> str:
    value = param.default
    if param.required:
        return "required"
    if callable(value) or value is None or value == () or type(value).__name__ == "Sentinel":
        return ""
    if value is False or value == "":
        return ""
    return f"`{value}`"


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
