"""The program that measures the relay: its cells, its smaller vocabulary, what it keeps."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

import latentmas as lm
from latentmas.demo.real import RealRecipe, answer, relay_team
from latentmas.demo.relay import make_rows
from latentmas.evaluation import tango
from latentmas.testing import tiny_backbone
from tests.vocabularies import TEXT, speaker

RECIPE = replace(RealRecipe(), train_rows=8, steps=2, heldout=4, batch_size=4, latent_steps=4)


@pytest.fixture(scope="module")
def program() -> Any:
    return importlib.import_module("benchmarks.relay_table")


def alone(backbone: lm.Backbone) -> lm.System:
    graph = lm.Graph("alone", inputs=["question"], rounds=1)
    graph.add_agent("one", backbone, prompt="{{ question }}", max_new_tokens=12)
    return graph.output("one").compile().load()


def test_the_whole_table_on_a_tiny_model(
    program: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LATENTMAS_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["relay_table.py", "--tiny", "--json"])
    monkeypatch.setattr(torch, "set_flush_denormal", lambda _: True)  # of the whole process
    program.main()
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert {name.split("/")[0] for name in cells} == {"tokenizers", "steps", "loops", "softmax"}
    for name, cell in cells.items():
        if "hits" not in cell:
            assert name.endswith(("/training", "/size"))
            continue
        assert cell["accuracy"] == cell["hits"].count("1") / cell["n"]
        assert cell["interval"][0] <= cell["accuracy"] <= cell["interval"][1]
        if name.startswith("steps/K"):
            assert 0 < cell["message_length"] <= int(name.split("/")[1][1:])
    assert cells["steps/K8/seed0/training"]["steps"] == 2


def test_a_second_session_measures_and_trains_nothing_again(program: Any, tmp_path: Path) -> None:
    source = tiny_backbone("llama", 32).source
    path = tmp_path / "cells.jsonl"
    program.latent_steps(program.Table(path, tmp_path, source, RECIPE), steps=3, seed=0)
    before = path.read_text()
    assert [name.split("/")[-1] for name in program.read_cells(path)] == [
        *("twin", "untrained", "training", "trained", "shuffled")
    ]
    program.latent_steps(program.Table(path, tmp_path, source, RECIPE), steps=3, seed=0)
    assert path.read_text() == before
    lines = [line for line in before.splitlines() if "/trained" not in line]
    path.write_text("\n".join(lines) + "\n")
    program.latent_steps(program.Table(path, tmp_path, source, RECIPE), steps=3, seed=0)
    assert [line["hits"] for line in map(json.loads, path.read_text().splitlines()[-1:])] == [
        json.loads(before.splitlines()[3])["hits"]
    ]


def test_a_model_with_other_ids_writes_the_same(program: Any, tmp_path: Path) -> None:
    one = alone(speaker("bytes", 300, 32, tied=False))
    loaded = one.backbone_of("one")
    assert program.fewer_merges(loaded, tmp_path / "all", 0.0) == len(loaded.tokenizer)
    other = alone(lm.Backbone(str(tmp_path / "all")))
    assert other.backbone_of("one").tokenizer.get_vocab() != loaded.tokenizer.get_vocab()
    questions = ["Where does Ben live?", "Rosa is a lawyer.", "naïve é 7"]
    assert other.run(questions).texts == one.run(questions).texts


@pytest.mark.parametrize("tied", [True, False])
def test_tokens_that_remain_keep_their_rows(program: Any, tmp_path: Path, tied: bool) -> None:
    loaded = alone(speaker("bytes", 300, 32, tied=tied, padding=3)).backbone_of("one")
    size = program.fewer_merges(loaded, tmp_path, 0.5)
    few = AutoTokenizer.from_pretrained(tmp_path)
    assert len(few) == size < len(loaded.tokenizer)
    for text in TEXT:
        ids = few(text, add_special_tokens=False).input_ids
        assert few.decode(ids) == text
        assert len(ids) > len(loaded.tokenizer(text, add_special_tokens=False).input_ids)
    model = alone(lm.Backbone(str(tmp_path))).backbone_of("one").model
    old = loaded.tokenizer.get_vocab()
    for name in ("get_input_embeddings", "get_output_embeddings"):
        now, before = (getattr(one, name)().weight for one in (model, loaded.model))
        assert now.shape[0] == size
        for token, new in few.get_vocab().items():
            assert torch.equal(now[new], before[old[token]])


def test_kept_states_are_those_of_cached(program: Any) -> None:
    backbone = tiny_backbone("llama", 32)
    system = relay_team(backbone, backbone, RECIPE).compile().load(dtype="float64").double()
    rows, kept = make_rows(5, seed=0), program.Kept()
    plain = answer(system, rows, record="states", batch_size=2)[1]
    for _ in range(2):
        found = answer(system, rows, record="states", batch_size=2, executor=kept)[1]
        assert found.texts == plain.texts
        for name, states in plain.states.items():
            assert torch.equal(found.states[name], states)
    assert len(kept.states) == 3


def test_the_summary_compares_with_the_twin_in_pairs(program: Any) -> None:
    cell = {"accuracy": 0.75, "interval": [0.3, 0.95], "n": 4, "message_length": 3.0}
    cells = {
        "steps/K8/seed0/twin": cell | {"hits": "1110", "cpu_seconds": 1.0},
        "steps/K8/seed0/untrained": cell | {"hits": "0111", "cpu_seconds": 1.0},
        "steps/K8/seed0/training": {"steps": 2},
    }
    lines = program.summary(cells).splitlines()
    assert len(lines) == 4
    low, high = tango(1, 1, 4)
    assert f"+0.000 [{low:+.3f}, {high:+.3f}]" in lines[3]
