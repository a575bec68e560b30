"""Rounds on a real model: the task, and the way of the benchmark on a tiny model."""

from __future__ import annotations

import importlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import latentmas as lm
from latentmas.demo.asking import asking_team, correct, make_rows
from latentmas.testing import tiny_backbone


@pytest.fixture(scope="module")
def benchmark() -> Any:
    return importlib.import_module("benchmarks.rounds_real")


@pytest.mark.parametrize("facts", [1, 6])
def test_a_question_is_about_one_fact_of_the_passage(facts: int) -> None:
    rows = list(make_rows(100, random.Random(1), facts))
    assert rows == list(make_rows(100, random.Random(1), facts))
    for row in rows:
        assert row["note"] in row["passage"] and row["passage"].count(".") == facts
        assert correct(row["note"], row)
        assert correct(row["reply"], row)
        assert not correct(row["question"], row)
    assert not correct("It is red, not blue.", {"answer": "blue"})


def test_the_question_reaches_the_reader_from_round_two_on_and_only_as_feedback() -> None:
    system = asking_team(tiny_backbone("llama", 32)).compile().load()
    one = {"passage": "Ben owns a cat.", "question": "Which animal does Ben own?"}
    other = one | {"question": "How old is Ben?"}
    found = system.run([one, other], rounds=2, record=("messages",), max_new_tokens=1).messages
    first, second = (found[f"round{n}.reader->answerer"] for n in (1, 2))
    assert torch.equal(first[0], first[1])
    assert not torch.equal(second[0], second[1])


def test_the_whole_way_on_a_tiny_model_and_nothing_is_done_twice(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "found.json"
    given = ["rounds_real.py", "--tiny", "--work", str(tmp_path / "work"), "--json", str(out)]
    monkeypatch.setattr(sys, "argv", [*given, "--only", "solos,read,apart,controls,twice"])
    benchmark.main()
    first = json.loads(out.read_text())
    measured = [line for line in first["lines"] if "accuracy" in line]
    assert [line["rounds"] for line in measured if line["system"] == "twice"] == [1, 2, 3]
    assert len({line["control"] for line in measured}) == 3
    for line in measured:
        assert line["n"] == len(line["hits"]) == 4
        assert line["interval"][0] <= line["accuracy"] <= line["interval"][1]
    taught = [line for line in first["lines"] if "training" in line]
    depths = {line["system"]: line["train_rounds"] for line in taught}
    assert depths == {"stem": 1, "read": 1, "twice": 2}
    monkeypatch.setattr(lm.OuterTrainer, "train", lambda *_, **__: pytest.fail("trained again"))
    benchmark.main()
    assert json.loads(out.read_text()) == first
