"""What starts fast: the import, help texts, and plans of known models."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import latentmas
from latentmas.cli.app import app
from latentmas.cli.commands import COMMANDS
from latentmas.links import LinkSketch, link_kinds, link_sketch
from latentmas.links._sketches import BUILT_IN, sketch_class

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


def test_plans_of_known_models_import_no_torch() -> None:
    loaded = imported_by(RUN.format(words=["plan", "sequential_light"]))
    assert not loaded & {"torch", "transformers", "tokenizers", "accelerate", "numpy"}


# --- link kinds as the compiler knows them --------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BUILT_IN))
@given(
    role=st.sampled_from(["inner", "outer"]),
    widths=st.tuples(st.integers(1, 12), st.integers(1, 12)) | st.just((8, 8)),
    expansion=st.none() | st.integers(1, 3),
    residual=st.sampled_from([None, "identity", "projection", True, False]),
)
def test_sketches_are_what_the_classes_say(
    name: str,
    role: str,
    widths: tuple[int, int],
    expansion: int | None,
    residual: str | bool | None,
) -> None:
    sketch, asked = link_sketch(name), sketch_class(link_kinds.get(name))
    assert (sketch.options, sketch.inits, sketch.needs) == asked[:3]
    named = {"expansion": expansion, "residual": residual}
    options = {key: value for key, value in named.items() if value is not None}
    assert resolved(sketch, role, options, widths) == resolved(asked, role, options, widths)


def resolved(
    sketch: LinkSketch, role: str, options: dict[str, Any], widths: tuple[int, int]
) -> object:
    """Options with defaults, number of weights and whether they scale; or the error's text."""
    try:
        found = sketch.resolve(role, options, *widths)
    except ValueError as error:
        return str(error)
    return found, sketch.measure(found, *widths)


def test_layers_beyond_what_torch_can_describe_are_refused() -> None:
    options = link_sketch("mlp").options(expansion=64)
    for sketch in (link_sketch("mlp"), sketch_class(link_kinds.get("mlp"))):
        with pytest.raises((OverflowError, RuntimeError)):
            sketch.measure(options, 2**40, 2**40)
