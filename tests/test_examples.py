"""Every example runs, offline, and says first what it teaches."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

import latentmas as lm

EXAMPLES = Path(__file__).parent.parent / "examples"
BROKEN = {"broken.yaml"}  # shows mistakes; test_templates.py reads it


@pytest.fixture(autouse=True)
def _own_registry():
    """Kinds that examples register are gone after the test."""
    before = set(lm.link_kinds.names())
    yield
    for name in set(lm.link_kinds.names()) - before:
        del lm.link_kinds._entries[name]


def brief(made: Any) -> Any:
    """A configuration or a trainer: at most 3 steps and 64 rows, where an example asks for more."""

    def make(*given: Any, **options: Any) -> Any:
        if "max_steps" in options:
            options["max_steps"] = min(options["max_steps"], 3)
        if "train_dataset" in options:
            options["train_dataset"] = options["train_dataset"][:64]
        return made(*given, **options)

    return make


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.name)
def test_examples_run(path: Path, tmp_path, monkeypatch, capsys):
    assert path.read_text(encoding="utf-8").startswith('"""Teaches: ')
    monkeypatch.chdir(tmp_path)
    for name in ("EdgeConfig", "OuterConfig", "EdgeTrainer"):
        monkeypatch.setattr(lm, name, brief(getattr(lm, name)))
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.name)
def test_graph_files_compile(path: Path):
    if path.name in BROKEN:
        with pytest.raises(lm.GraphError):
            lm.Graph.load(path).compile()
    else:
        assert lm.Graph.load(path).compile().n_parameters > 0
