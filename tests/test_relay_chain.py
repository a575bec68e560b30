"""The benchmark of random links on a real model: its way on a tiny one, and how it resumes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def benchmark() -> Any:
    return importlib.import_module("benchmarks.relay_chain")


def test_a_line_for_each_loop_and_what_is_known_is_left_out(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines.jsonl"

    def run(*arguments: str) -> list[Any]:
        before = path.read_text().splitlines() if path.exists() else []
        given = ["--tiny", "--seeds", "0", "--output", str(path), "--work", str(tmp_path / "work")]
        monkeypatch.setattr(sys, "argv", ["relay_chain.py", *given, *arguments])
        monkeypatch.setattr(benchmark.torch, "set_num_threads", lambda count: None)
        benchmark.main()
        lines = path.read_text().splitlines()
        assert lines[: len(before)] == before
        return [json.loads(line) for line in lines[len(before) :]]

    first = run("--recipes", "kept", "--untrained")
    assert [line["stage"] for line in first] == ["text twin", "untrained", "rollout", "outer"]
    assert "shuffled_hits" not in first[2]
    assert "shuffled_hits" in first[3]
    for line in first:
        low, high = line["interval"]
        assert line["n"] == 4
        assert 0 <= low <= line["hits"] <= high <= 1
    for line in first[2:]:
        assert 0 <= line["nearest_rollout"] <= 1
        assert line["steps"] > 0
    second = run()
    assert [line["recipe"] for line in second] == ["passes"] * 4
    assert [line["stage"] for line in second] == ["inner", "edge", "rollout", "outer"]
