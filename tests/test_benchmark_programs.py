"""The benchmark programs use names that the package has; not all of them run in tests."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

PROGRAMS = sorted((Path(__file__).parent.parent / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_from_the_package_exists(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("latentmas"):
            continue
        missing = [name.name for name in node.names if not exists(node.module or "", name.name)]
        assert not missing, f"{path.name}:{node.lineno}: {node.module} has no {missing}"


def exists(module: str, name: str) -> bool:
    """Whether a module has an attribute, or a package a module."""
    if hasattr(importlib.import_module(module), name):
        return True
    return importlib.util.find_spec(f"{module}.{name}") is not None
