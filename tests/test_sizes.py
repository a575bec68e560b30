"""Small files, short functions."""

from __future__ import annotations

import ast
from pathlib import Path

FILES = sorted((Path(__file__).parent.parent / "latentmas").rglob("*.py"))


def lengths() -> dict[str, int]:
    """Lines of each function's body, without its docstring."""
    found = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                found[f"{path.name}:{node.name}:{node.lineno}"] = lines
    return found


def test_files_are_small():
    sizes = {str(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: n for name, n in sizes.items() if n > 400} == {}
    assert sum(n <= 300 for n in sizes.values()) >= 0.9 * len(sizes)


def test_functions_are_short():
    sizes = lengths()
    assert {name: n for name, n in sizes.items() if n > 60} == {}
    assert sum(n <= 40 for n in sizes.values()) >= 0.9 * len(sizes)
