"""What every loop measures on held-out rows: the loss, and what real rollouts say."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import latentmas as lm
from latentmas.training import rollout_accuracy
from tests.teams import RECURSIVE, tiny
from tests.test_rollout_loop import ROWS, TARGETS, pair

PLAIN = [{"question": row["question"], "answer": row["answer"]} for row in ROWS]
SCORES = ["message_cosine", "nearest_forced", "nearest_rollout", "word_cosine"]


def recursive(**changes: Any) -> lm.System:
    return pair(**({"rounds": 1, "latent_steps": 6} | RECURSIVE | changes)).compile().load()


def evaluated(kind: str, system: lm.System, folder: Path, rows: Any, **fields: Any) -> Any:
    config = getattr(lm, f"{kind}Config")(str(folder), use_cpu=True, **fields)
    trainer = getattr(lm, f"{kind}Trainer")(system, config, train_dataset=rows, eval_dataset=rows)
    return trainer.evaluate()


def test_inner_and_edge_loops_log_rollouts_and_warn_where_they_part(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both losses fall; rollouts of six steps say next to nothing, and training says so."""
    options: dict[str, Any] = {"max_steps": 60, "learning_rate": 2e-2, "progress": False}
    options |= {"loops": ["inner", "edge"], "targets": TARGETS}
    with caplog.at_level(logging.WARNING, "latentmas"):
        done = lm.train(recursive(), ROWS, output_dir=tmp_path, eval_rows=ROWS, **options)
    told = [record.getMessage() for record in caplog.records]
    for stage, what in zip(done.stages, ("latents", "messages"), strict=True):
        log = (stage.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        (logged,) = [entry for entry in map(json.loads, log) if "eval_loss" in entry]
        assert logged["eval_loss"] < 0.5
        assert logged["eval_nearest_forced"] > logged["eval_nearest_rollout"] + 0.3
        assert logged["eval_message_cosine"] > logged["eval_word_cosine"]
        assert any(line.startswith(f"{what} say the right word in") for line in told)


@pytest.mark.parametrize("kind", ["Inner", "Edge", "Rollout", "Outer"])
def test_all_loops_measure_the_same(kind: str, tmp_path: Path) -> None:
    system = recursive()
    texts = {"targets": TARGETS} if kind != "Outer" else {}
    scores = evaluated(kind, system, tmp_path, ROWS, **texts)
    links: Any = "inner" if kind == "Inner" else "outer"
    found = rollout_accuracy(system, ROWS, TARGETS, links=links)
    assert sorted(found) == SCORES
    for name, value in found.items():
        assert scores[f"eval_{name}"] == pytest.approx(value, abs=1e-6), name
    none = evaluated(kind, system, tmp_path, ROWS, rollout_rows=0, **texts)
    assert "eval_nearest_rollout" not in none and "eval_loss" in none


def test_an_agent_that_several_hear_counts_once_for_its_inner_link() -> None:
    def team(heard_twice: bool) -> lm.System:
        graph = lm.Graph("heard", inputs=["question"], rounds=1, latent_steps=4)
        small = tiny("llama", 16)
        graph.add_agent("expert", small, prompt="{{ question }}", inner="recursive")
        graph.add_agent("other", small, prompt="{{ question }}", inner="recursive")
        again = "{{ again }}" if heard_twice else ""
        graph.add_agent("last", small, prompt="{{ expert }} {{ other }}" + again)
        for sender in ("expert", "other"):
            graph.connect(sender, f"last.{sender}", link="recursive")
        if heard_twice:
            graph.connect("expert", "last.again", link="recursive")
        return graph.output("last").compile().load()

    targets = {"expert": "expert", "other": "answer", "last": "answer"}
    once, twice = (
        rollout_accuracy(team(heard), ROWS, targets, links="inner") for heard in (False, True)
    )
    assert once == pytest.approx(twice, abs=1e-6)


def test_without_texts_the_outer_loop_takes_the_twins_words(tmp_path: Path) -> None:
    system = recursive()
    scores = evaluated("Outer", system, tmp_path, PLAIN)
    assert scores["eval_word_cosine"] == pytest.approx(
        rollout_accuracy(system, PLAIN)["word_cosine"], abs=1e-6
    )


def test_a_team_without_inner_weights_is_not_told_that_it_drifts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    system = recursive(inner="soft_token", link="soft_token")
    with caplog.at_level(logging.WARNING, "latentmas"):
        scores = evaluated("Outer", system, tmp_path, PLAIN, max_steps=1)
    assert scores["eval_nearest_forced"] >= 0
    assert "links drift" not in caplog.text


@pytest.mark.parametrize("kind", ["Inner", "Edge", "Rollout", "Outer"])
def test_a_negative_number_of_rows_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(lm.LatentMASError, match="rollout_rows is -1; it takes a whole number"):
        evaluated(kind, recursive(), tmp_path, ROWS, rollout_rows=-1)
