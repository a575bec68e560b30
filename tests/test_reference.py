"""The reference of the docs: every name on its pages, and every member of it, has a text."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

griffe: Any = pytest.importorskip("griffe")
ROOT = Path(__file__).parent.parent
BARE = {"model_config"}
"""Members that belong to pydantic."""


@pytest.fixture(scope="module")
def package() -> Any:
    """The package as mkdocstrings reads it, without importing it."""
    extensions = griffe.load_extensions(str(ROOT / "docs/extensions/field_help.py"))
    paths = [str(ROOT), *sys.path]
    return griffe.load("latentmas", extensions=extensions, search_paths=paths, resolve_aliases=True)


def shown() -> list[str]:
    """Names that the pages of the reference show."""
    pages = "\n".join(page.read_text() for page in sorted((ROOT / "docs/api").glob("*.md")))
    return re.findall(r"^::: latentmas\.([\w.]+)$", pages, re.MULTILINE)


@pytest.mark.parametrize("name", shown())
def test_a_name_and_its_members_have_texts(name: str, package: Any) -> None:
    """The site leaves out members without a text."""
    found = package[name]
    found = found.final_target if found.is_alias else found
    assert found.has_docstring
    if found.is_class:
        members = {key: m for key, m in found.members.items() if not key.startswith("_")}
        bare = {key for key, member in members.items() if not member.has_docstring}
        assert bare <= BARE


def test_fields_of_configurations_show_their_help(package: Any) -> None:
    fields = package["training.config.RolloutConfig"].members
    assert fields["refresh_steps"].docstring.value.startswith("Number of steps between rollouts")
    assert fields["learning_rate"].docstring.value == "Peak learning rate of AdamW."
