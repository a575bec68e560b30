"""What is kept of a training: arguments, log, digests, and the chain from one to the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.cli.support.rows import write_rows
from latentmas.io import digest_rows, weights_digest
from latentmas.spec import LinkSpec
from tests.teams import tiny

ROWS = [{"question": f"{i}+2", "answer": f"={i + 2}"} for i in range(8)]
SHORT: dict[str, Any] = {
    "max_steps": 2,
    "use_cpu": True,
    "per_device_train_batch_size": 2,
    "logging_steps": 1,
}


def graph() -> lm.Graph:
    small = tiny("llama", 16)
    return lm.templates.distillation(
        expert=small, learner=small, rounds=2, latent_steps=2, link="recursive", inner="recursive"
    )


PLAN = graph().compile()


@pytest.fixture
def system() -> lm.System:
    return PLAN.load()


def outer(system: lm.System, folder: Path, **options: Any) -> lm.OuterTrainer:
    config = lm.OuterConfig(str(folder), probe_stability=False, **(SHORT | options))
    return lm.OuterTrainer(system, config, train_dataset=ROWS, eval_dataset=ROWS[:3])


def test_trainings_are_recorded_in_a_chain(system: lm.System, tmp_path: Path) -> None:
    before = weights_digest(system)
    config = lm.InnerConfig(str(tmp_path / "inner"), seed=3, **SHORT)
    lm.InnerTrainer(system, config, train_dataset=ROWS).train()
    trainer = outer(system, tmp_path / "outer", learning_rate=0.01)
    trainer.train()
    trainer.evaluate()
    inner, second = system.history
    assert (inner.loop, second.loop) == ("inner", "outer")
    assert inner.manifest["links_before"] == before
    assert inner.manifest["links_after"] == second.manifest["links_before"]
    assert second.manifest["links_after"] == weights_digest(system)
    assert inner.manifest["seed"] == 3 and inner.manifest["steps"] == 2
    assert inner.manifest["data"] == {"rows": 8, "digest": digest_rows(ROWS)}
    assert second.manifest["eval_data"] == {"rows": 3, "digest": digest_rows(ROWS[:3])}
    assert second.manifest["links"] == [x.id for x in PLAN.links if x.role == "outer"]
    assert second.manifest["plan"] == PLAN.digest
    assert second.manifest["versions"]["torch"] == torch.__version__
    assert second.manifest["resumed_at"] == [] and second.manifest["seconds"] > 0
    assert second.arguments["learning_rate"] == 0.01 and "output_dir" not in second.arguments
    assert [entry["step"] for entry in second.log if "loss" in entry] == [1, 2]
    assert "eval_exact_match" in second.log[-1]


def test_a_record_is_saved_with_the_team_and_goes_on_from_it(
    system: lm.System, tmp_path: Path
) -> None:
    outer(system, tmp_path / "one").train()
    folder = system.save_pretrained(tmp_path / "team")
    assert (folder / "training/1-outer/log.jsonl").read_text().count("\n") == 3
    again = lm.System.from_pretrained(folder, reuse=system)
    assert [record.loop for record in again.history] == ["outer"]
    assert again.history[0].manifest == system.history[0].manifest
    config = lm.EdgeConfig(str(tmp_path / "two"), **SHORT)
    lm.EdgeTrainer(again, config, train_dataset=ROWS).train()
    assert [record.loop for record in again.history] == ["outer", "edge"]
    names = {p.parent.name for p in again.save_pretrained(folder).rglob("arguments.json")}
    assert names == {"1-outer", "2-edge"}
    card = (folder / "README.md").read_text()
    assert "\n| outer | 2 | 2 | 8 | 2 |" in card and "\n| edge | 2 | 2 | 8 | 2 |" in card


def test_a_checkpoint_holds_the_record_so_far_and_resuming_goes_on_with_it(
    system: lm.System, tmp_path: Path
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3}
    lm.InnerTrainer(
        system, lm.InnerConfig(str(tmp_path / "inner"), **SHORT), train_dataset=ROWS
    ).train()
    outer(system, tmp_path / "out", **saving).train()
    whole = system.history
    (tmp_path / "out" / "checkpoint-3").rename(tmp_path / "gone")
    at_two = lm.System.from_pretrained(tmp_path / "out" / "checkpoint-2", reuse=system).history
    assert [record.manifest["steps"] for record in at_two] == [2, 2]
    assert [entry["step"] for entry in at_two[1].log] == [1, 2]
    fresh = PLAN.load()
    outer(fresh, tmp_path / "out", **saving).train(resume_from_checkpoint=True)
    inner, resumed = fresh.history
    assert inner == whole[0] and resumed.manifest["resumed_at"] == [2]
    for name in ("links_before", "links_after", "data", "steps", "began"):
        assert resumed.manifest[name] == whole[1].manifest[name], name
    assert resumed.manifest["seconds"] > at_two[1].manifest["seconds"]
    assert [entry["step"] for entry in resumed.log] == [1, 2, 3, 3]


def test_the_command_line_leaves_the_record_in_the_team(tmp_path: Path) -> None:
    team = graph().save(tmp_path / "team.yaml")
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    words = ["train", "inner", team, "--data", rows, "--output-dir", tmp_path / "out"]
    done = CliRunner().invoke(app, [str(word) for word in (*words, "--steps", 1, "--seed", 9)])
    assert done.exit_code == 0, done.output
    home = tmp_path / "out" / "team" / "training" / "1-inner"
    assert json.loads((home / "manifest.json").read_text())["seed"] == 9
    assert json.loads((home / "arguments.json").read_text())["max_steps"] == 1


def steps_logged(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_each_training_has_a_log_of_its_own_and_a_resumed_one_continues(
    system: lm.System, tmp_path: Path
) -> None:
    log, first, second = (tmp_path / f"metrics{end}.jsonl" for end in ("", "-1", "-2"))
    saving: dict[str, Any] = {"logging_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = outer(system, tmp_path, **saving)
    trainer.evaluate()  # a baseline belongs to the training that follows
    trainer.train()
    began = log.read_text()
    assert steps_logged(log)[:2] == [0, 1] and not first.exists()
    trainer.train()
    assert first.read_text() == began and 0 not in steps_logged(log)
    outer(system, tmp_path, **saving).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert steps_logged(log)[-2:] == [2, 2] and not second.exists()
    assert len(steps_logged(log)) > len(steps_logged(first)) - 1
    outer(system, tmp_path, **saving).train()
    assert second.exists() and steps_logged(log) == steps_logged(first)[1:]
    page = lm.training_report(tmp_path).read_text()
    assert page.count("<h2") == 1


def test_agents_that_share_an_inner_link_have_a_norm_in_the_log(tmp_path: Path) -> None:
    small = tiny("llama", 16)
    inner = LinkSpec(share="one")
    made = lm.Graph("shared", inputs=["question"], rounds=2, latent_steps=2)
    made.add_agent("a", small, prompt="{{ question }}{% if b %}{{ b }}{% endif %}", inner=inner)
    made.add_agent("b", small, prompt="{{ question }} {{ a }}", inner=inner)
    made.connect("a", "b", link="recursive")
    made.feedback("b", "a", link="recursive")
    system = made.output("b").compile().load()
    outer(system, tmp_path, logging_steps=1, train_links="all").train()
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["latent_norm/a+b"] > 0 and first["message_norm/round1.b->a"] > 0
