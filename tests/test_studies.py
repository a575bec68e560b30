"""Cells of a study: kept once finished, continued once stopped, refused once changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import latentmas as lm
from latentmas.errors import DataError, LatentMASError
from latentmas.runtime import SampleEnd
from latentmas.studies import Cell, read_cells, run_cell
from latentmas.testing import tiny_backbone

ROWS = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(4)]


def team() -> lm.System:
    graph = lm.Graph("pair", inputs=["question"], rounds=2, latent_steps=2)
    model = tiny_backbone("llama", 16)
    graph.add_agent("reader", model, prompt="{{ question }}")
    graph.add_agent("writer", model, prompt="{{ note }} {{ question }}", max_new_tokens=2)
    graph.connect("reader", "writer.note")
    return graph.output("writer").compile().load()


def test_a_finished_cell_is_read_not_run(tmp_path: Path):
    cell, calls = Cell({"link": "soft_token", "seed": 0}), list[Path]()

    def prepare(folder: Path) -> lm.System:
        calls.append(folder)
        return team()

    runs = {"rounds=1": {"rounds": 1}, "rounds=2": {"rounds": 2}}
    facts: dict[str, Any] = {"parameters": 12}
    first = run_cell(tmp_path, cell, prepare, ROWS, runs=runs, measure=lambda _: facts)
    again = run_cell(tmp_path, cell, prepare, ROWS, runs=runs)
    assert again == first
    assert calls == [tmp_path / "link=soft_token,seed=0"]
    assert read_cells(tmp_path) == [first]
    assert first.facts == facts
    assert first.evaluation("rounds=2")["rows"] == 4
    assert first.evaluation("rounds=2")["latent_steps"] == 4 * 2
    assert len(first.evaluation("rounds=1")["row_scores"]) == 4
    with pytest.raises(LatentMASError, match="no evaluation 'rounds=3'; it has 'rounds=1'"):
        first.evaluation("rounds=3")


def test_a_stopped_cell_runs_only_what_it_lacks(tmp_path: Path):
    cell, ran = Cell({"seed": 1}), list[int]()

    def watch(event: Any) -> None:
        if isinstance(event, SampleEnd):
            ran.append(event.sample)
            if len(ran) == 2:
                raise KeyboardInterrupt

    def run(**more: Any) -> Any:
        return run_cell(tmp_path, cell, lambda _: team(), ROWS, batch_size=1, **more)

    with pytest.raises(KeyboardInterrupt):
        run(on_event=watch)
    assert read_cells(tmp_path) == []
    del ran[:]
    whole = run(on_event=lambda event: ran.append(1) if isinstance(event, SampleEnd) else None)
    assert 0 < len(ran) < 4
    assert whole.evaluation()["rows"] == 4


def test_a_changed_cell_is_not_reused(tmp_path: Path):
    run_cell(tmp_path, Cell({"seed": 0}, {"data": "a"}), lambda _: team(), ROWS)
    with pytest.raises(DataError, match="was made from another team, other data or another"):
        run_cell(tmp_path, Cell({"seed": 0}, {"data": "b"}), lambda _: team(), ROWS)


def test_a_damaged_cell_is_named(tmp_path: Path):
    run_cell(tmp_path, Cell({"seed": 0}), lambda _: team(), ROWS)
    (tmp_path / "seed=0" / "cell.json").write_text("{}")
    with pytest.raises(DataError, match=r"cell.json' is not the result of a cell"):
        read_cells(tmp_path)


def test_names_of_cells_are_names_of_folders():
    assert Cell({"model": "a/b c", "k": 4}).name == "model=a-b-c,k=4"
    long = [Cell({"prompt": "x" * 200 + end}).name for end in "ab"]
    assert long[0] != long[1]
    assert all(len(name) <= 120 for name in long)
