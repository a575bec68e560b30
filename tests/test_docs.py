"""Everything shown is run, every code and public name has its place, links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from pathlib import Path

import pytest

import latentmas as lm
from latentmas.errors import CODES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def _own_registry():
    """Kinds that pages and examples register are gone after the test."""
    before = set(lm.link_kinds.names())
    yield
    for name in set(lm.link_kinds.names()) - before:
        del lm.link_kinds._entries[name]


def blocks(path: Path) -> list[str]:
    return BLOCK.findall(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "path", [p for p in PAGES if blocks(p)], ids=lambda p: str(p.relative_to(ROOT))
)
def test_python_blocks_run_and_print_what_they_say(path: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "__docs__"}
    for block in blocks(path):
        expected = re.findall(r"^\s*#> (.*)$", block, re.MULTILINE)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, str(path), "exec"), scope)
        if expected:
            assert printed.getvalue().splitlines() == expected


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_run(path: Path, tmp_path, monkeypatch, capsys):
    assert path.read_text().startswith(('"""', "# ")), "say first what the example teaches"
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


def test_every_code_has_a_section():
    headings = re.findall(r"^## (LM\d+)$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert headings == list(CODES)


def test_every_public_name_is_in_the_reference():
    shown = re.findall(r"^::: latentmas\.(\w+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert set(shown) == set(lm.__all__) - {"templates"}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target
