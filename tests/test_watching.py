"""A training that one can watch, stop and continue: progress, checkpoints by default, Ctrl-C."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import latentmas as lm
from latentmas.runtime.loading.init_weights import physical_memory
from latentmas.training.memory import idle
from latentmas.training.monitoring import progress as _progress
from latentmas.training.monitoring.telemetry import row_cosine
from tests.test_training import PLAN, ROWS, changed, outer, weights


def checkpoints(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


class Interrupts(TrainerCallback):
    """Presses Ctrl-C in a step, once or twice."""

    def __init__(self, step: int, times: int = 1) -> None:
        self.step, self.times = step, times

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step + 1 == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)


# --- progress ---------------------------------------------------------------------------------


def test_python_trainings_say_how_they_go(tmp_path: Path, capfd: Any) -> None:
    outer(PLAN.load(), tmp_path, eval_dataset=ROWS[:2], eval_strategy="epoch").train()
    said = capfd.readouterr()
    assert said.out == ""
    assert "outer loop: 2 of 2 steps in" in said.err and "target tokens/s" in said.err
    assert "outer loop, after step 1: eval_loss" in said.err and "eval_exact_match" in said.err


def test_progress_can_be_turned_off(tmp_path: Path, capfd: Any) -> None:
    outer(PLAN.load(), tmp_path, progress=False).train()
    assert "outer loop" not in capfd.readouterr().err


def test_without_a_terminal_a_line_is_written_from_time_to_time(
    tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    outer(PLAN.load(), tmp_path).train()
    lines = [line for line in capfd.readouterr().err.splitlines() if "outer loop: step" in line]
    assert len(lines) == 2
    assert lines[0].startswith("outer loop: step 1 of 2, loss ")
    assert lines[0].endswith(" left") and "target tokens/s" in lines[0]


def test_the_log_has_tokens_per_second_and_the_mean_loss_of_a_step(tmp_path: Path) -> None:
    trainer = outer(
        PLAN.load(),
        tmp_path,
        max_steps=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
    )
    trainer.train()
    entry = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert entry["target_tokens_per_second"] > 0
    assert trainer._pace.loss == pytest.approx(entry["loss"], abs=1e-3)


# --- checkpoints ------------------------------------------------------------------------------


def test_checkpoints_are_written_by_default_and_the_newest_two_kept(tmp_path: Path) -> None:
    seen: list[int] = []

    class Saves(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen.append(state.global_step)

    outer(PLAN.load(), tmp_path, max_steps=10, callbacks=[Saves()]).train()
    assert seen == [2, 4, 6, 8, 10]
    assert checkpoints(tmp_path) == {"checkpoint-8", "checkpoint-10"}


def test_checkpoints_of_an_earlier_training_are_set_aside(tmp_path: Path) -> None:
    outer(PLAN.load(), tmp_path, max_steps=4).train()
    outer(PLAN.load(), tmp_path, max_steps=2).train()
    earlier = {"earlier-checkpoint-3", "earlier-checkpoint-4"}
    assert checkpoints(tmp_path) == earlier | {"checkpoint-1", "checkpoint-2"}


def test_the_best_checkpoint_needs_no_save_steps(tmp_path: Path) -> None:
    options: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1}
    options |= {"load_best_model_at_end": True, "eval_exact_match": False}
    trainer = outer(PLAN.load(), tmp_path, eval_dataset=ROWS[:2], **options)
    trainer.train()
    assert str(trainer.state.best_model_checkpoint).startswith(str(tmp_path / "checkpoint-"))


# --- settings ---------------------------------------------------------------------------------


def test_the_folder_says_which_settings_were_changed(tmp_path: Path) -> None:
    outer(PLAN.load(), tmp_path, learning_rate=0.01, rounds=2).train()
    found = json.loads((tmp_path / "training.json").read_text())
    assert found["loop"] == "outer" and found["data"]["rows"] == len(ROWS)
    wanted = {"learning_rate": 0.01, "rounds": 2, "max_steps": 2, "logging_steps": 1}
    assert found["changed"] == wanted | {"per_device_train_batch_size": 8, "use_cpu": True}
    assert found["defaults"]["max_grad_norm"] == 10.0


def test_the_rate_rises_over_a_twentieth_of_the_steps() -> None:
    config = lm.OuterConfig("out", use_cpu=True)
    assert [config.get_warmup_steps(n) for n in (1, 19, 100, 200)] == [0, 0, 5, 10]
    assert lm.OuterConfig("out", use_cpu=True, warmup_steps=7).get_warmup_steps(20) == 7


# --- Ctrl-C -----------------------------------------------------------------------------------


def test_ctrl_c_saves_a_checkpoint_from_which_the_training_goes_on(tmp_path: Path) -> None:
    whole = PLAN.load()
    outer(whole, tmp_path / "whole", max_steps=4).train()
    stopped = outer(PLAN.load(), tmp_path / "out", max_steps=4, callbacks=[Interrupts(3)])
    with pytest.raises(lm.TrainingInterrupted) as caught:
        stopped.train()
    assert caught.value.step == 3
    assert caught.value.checkpoint == str(tmp_path / "out" / "checkpoint-3")
    assert "trainer.train(resume_from_checkpoint=True)" in str(caught.value)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = PLAN.load()
    outer(again, tmp_path / "out", max_steps=4).train(resume_from_checkpoint=True)
    assert changed(weights(whole), weights(again)) == set()


def test_a_training_that_has_ended_takes_no_more_steps(tmp_path: Path, capfd: Any) -> None:
    whole = PLAN.load()
    outer(whole, tmp_path, max_steps=7, per_device_train_batch_size=1).train()
    again = PLAN.load()
    trainer = outer(again, tmp_path, max_steps=7, per_device_train_batch_size=1)
    trainer.train(resume_from_checkpoint="auto")
    assert trainer.state.global_step == 7
    assert "7 of 7 steps were done before, none are left" in capfd.readouterr().err
    assert changed(weights(whole), weights(again)) == set()
    longer = outer(PLAN.load(), tmp_path, max_steps=9, per_device_train_batch_size=1)
    longer.train(resume_from_checkpoint="auto")
    assert longer.state.global_step == 9


def test_resuming_warns_of_real_differences_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("transformers.trainer_utils")
    logger.addHandler(caplog.handler)
    try:
        for rows, differences in ((1, 0), (1, 0), (2, 1)):
            options: dict[str, Any] = {"max_steps": 7, "per_device_train_batch_size": rows}
            trainer = outer(PLAN.load(), tmp_path, **options)
            assert trainer.args.save_steps == 0.2
            trainer.train(resume_from_checkpoint="auto")
            said = list({line for line in caplog.messages if "do not match" in line})
            assert len(said) == differences
    finally:
        logger.removeHandler(caplog.handler)
    assert "per_device_train_batch_size: 2" in said[0]
    assert "save_steps" not in said[0]


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    trainer = outer(PLAN.load(), tmp_path, max_steps=40, callbacks=[Interrupts(3, times=2)])
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.train()
    assert not isinstance(caught.value, lm.TrainingInterrupted)
    assert not (tmp_path / "checkpoint-3").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- memory -----------------------------------------------------------------------------------


def test_freed_memory_is_given_back_once_it_is_a_lot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = int(idle.SHARE * physical_memory())
    held = iter([100, 100 + room, 101 + room, 50, 50 + room, 51 + room, 60])
    given_back: list[int] = []
    monkeypatch.setattr(idle, "resident_bytes", lambda: next(held))
    monkeypatch.setattr(idle, "release_unused", lambda: given_back.append(1))
    outer(PLAN.load(), tmp_path, max_steps=4).train()
    assert len(given_back) == 2
    assert next(held, None) is None


# --- what is watched --------------------------------------------------------------------------


def test_the_cosine_is_the_mean_over_pairs_of_rows() -> None:
    message_BKD = torch.randn(5, 3, 4, dtype=torch.float64)
    flat = [row.flatten() for row in message_BKD]
    pairs = [torch.cosine_similarity(a, b, dim=0) for a, b in combinations(flat, 2)]
    wanted = pytest.approx(float(torch.stack(pairs).mean()), abs=1e-6)
    assert row_cosine(message_BKD) == wanted
    assert row_cosine(message_BKD[:1]) is None


def test_messages_that_do_not_depend_on_the_input_are_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{**ROWS[0], "number": i} for i in range(8)]
    caplog.set_level("WARNING", "latentmas")
    outer(PLAN.load(), tmp_path / "same", rows, max_steps=6).train()
    said = [line for line in caplog.messages if "hardly depends on the input" in line]
    assert len(said) == 1 and "1.000" in said[0]
    first = json.loads((tmp_path / "same" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["message_cosine/round1.one->two"] == pytest.approx(1.0, abs=1e-4)
    caplog.clear()
    outer(PLAN.load(), tmp_path / "other", max_steps=6, learning_rate=0.0).train()
    log = (tmp_path / "other" / "metrics.jsonl").read_text().splitlines()
    cosines = [v for k, v in json.loads(log[0]).items() if k.startswith("message_cosine/")]
    assert len(cosines) == 3 and min(cosines) < 0.999


def test_the_page_begins_with_settings_and_data(tmp_path: Path) -> None:
    outer(PLAN.load(), tmp_path, learning_rate=0.0123, eval_dataset=ROWS[:2]).train()
    page = lm.training_report(tmp_path).read_text()
    parts = ["Data and links", "Settings that differ from the defaults", "0.0123"]
    parts += ["All other settings", "Target tokens per second", "messages of different rows"]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    (tmp_path / "training.json").write_text("{")
    assert "Data and links" not in lm.training_report(tmp_path).read_text()
