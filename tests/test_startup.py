"""What starts fast: the import, help texts, and plans of known models."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import latentmas
from latentmas.cli.app import app
from latentmas.cli.commands import COMMANDS

RUN = """
import sys
sys.argv = ["latentmas", *{words!r}]
from latentmas.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
sys.stdout.flush()
print("\\n" + " ".join(sorted({{name.split(".")[0] for name in sys.modules}})))
"""


def imported_by(code: str) -> set[str]:
    """Top-level packages that a fresh process has imported at the end."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_imports_no_other() -> None:
    loaded = "import latentmas, sys; print(*(name.split('.')[0] for name in sys.modules))"
    assert not imported_by(loaded) & {"pydantic", "jinja2", "yaml", "rich", "torch"}


def test_names_are_there_when_they_are_used() -> None:
    for name in latentmas.__all__:
        assert getattr(latentmas, name) is not None
    code = "import latentmas as lm; lm.errors.GraphError; lm.spec.Graph; lm.plan.Plan; print()"
    assert imported_by(code) == set()
    with pytest.raises(AttributeError, match="no attribute 'graphs'"):
        latentmas.graphs  # noqa: B018


def test_the_help_imports_no_command() -> None:
    assert not imported_by(RUN.format(words=["--help"])) & {"pydantic", "jinja2", "torch"}


@pytest.mark.parametrize("name", COMMANDS)
def test_summaries_are_those_of_the_commands(name: str) -> None:
    group: Any = typer.main.get_command(app)
    command = group.get_command(None, name)
    assert command.name == name
    assert " ".join(command.help.split("\n\n")[0].split()) == COMMANDS[name].summary


def test_the_help_lists_all_commands() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert all(f" {name} " in shown for name in COMMANDS)
