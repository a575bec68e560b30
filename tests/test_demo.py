"""The demo: its task is what it says, its models can look up, its way is walkable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import latentmas as lm
from latentmas.demo.run import run_demo, team
from latentmas.demo.task import (
    AGENTS,
    ROUNDS,
    WORDS,
    ceiling,
    correct,
    heldout_rows,
    inner_rows,
    make_rows,
    reach,
    train_rows,
)

BACKBONES = Path(lm.__file__).parent / "demo" / "backbones"


@pytest.fixture(scope="module")
def rows():
    return make_rows(600, seed=5)


def test_difficulty_is_the_round_from_which_the_answer_stands(rows):
    for row in rows:
        reached = [reach(row, rounds) == row["answer"] for rounds in range(1, ROUNDS + 2)]
        assert reached == [rounds >= row["difficulty"] for rounds in range(1, ROUNDS + 2)]


def test_difficulties_have_equal_shares_and_set_the_ceiling(rows):
    assert [sum(r["difficulty"] == d for r in rows) for d in (1, 2, 3)] == [200, 200, 200]
    assert [ceiling(rows, rounds) for rounds in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_rows_are_reproducible_and_the_sets_apart():
    assert make_rows(20, seed=1) == make_rows(20, seed=1)
    sets = [inner_rows(50, 0), train_rows(50, 0), heldout_rows(50, 0), heldout_rows(50, 1)]
    keys = [{json.dumps(row, sort_keys=True) for row in part} for part in sets]
    assert all(not a & b for i, a in enumerate(keys) for b in keys[i + 1 :])
    assert json.loads(json.dumps(sets[0])) == sets[0]


def test_facts_are_private_and_words_known(rows):
    for row in rows[:100]:
        tables = [dict(f.split() for f in row[f"{a}_facts"].split(" . ")) for a in AGENTS]
        assert [len(table) for table in tables] == [4, 4, 4]
        assert {w for t in tables for pair in t.items() for w in pair} <= set(WORDS)


def test_backbones_are_small_and_can_look_up(rows):
    size = sum(path.stat().st_size for path in BACKBONES.rglob("*") if path.is_file())
    assert size < 1.5e6
    twin = team().as_text().compile().load()
    some = rows[:90]
    texts = twin.run(some).texts
    assert sum(correct(text, row) for text, row in zip(texts, some, strict=True)) >= 86


def test_the_whole_way_in_short(tmp_path, capsys):
    report = run_demo(tmp_path, quick=True, json=True)
    assert capsys.readouterr().out == ""
    wanted = {"single", "untrained", "inner", "trained", "trained_by_difficulty"}
    assert set(report["accuracy"]) == wanted | {"null_message", "shuffled_message", "text_twin"}
    assert len(report["accuracy"]["trained_by_difficulty"]["3"]) == ROUNDS
    assert json.loads((tmp_path / "results.json").read_text()) == report
    written = ("team/links.safetensors", "team.svg", "accuracy.png", "plan.json")
    for name in (*written, "run.html", "training.html"):
        assert 0 < (tmp_path / name).stat().st_size < 2_000_000
    again = lm.System.from_pretrained(tmp_path / "team")
    assert again.run(heldout_rows(3, 0)).texts
