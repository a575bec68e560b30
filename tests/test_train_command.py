"""`latentmas train`: one command for a team, one for each loop of the registry, plug-ins too."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import latentmas as lm
from tests.processes import command, run_alone
from tests.test_cli import call, words
from tests.test_training import PLAN, ROWS

BRIEF = ("--steps", 1, "--batch-size", 4)


@pytest.fixture
def team(tmp_path: Path) -> Path:
    return lm.Graph.from_spec(PLAN.graph).save(tmp_path / "team.yaml")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return path


def test_a_team_is_trained_by_the_loops_that_suit_it(
    team: Path, rows: Path, tmp_path: Path
) -> None:
    common = ("train", team, "--data", rows, "--output-dir", tmp_path / "out")
    planned = call(*common, "--dry-run")
    assert "1  rollout" in planned.stdout and "2  outer" in planned.stdout
    assert not (tmp_path / "out").exists()
    stages = json.loads(call(*common, "--dry-run", "--json").stdout)["stages"]
    assert [stage["loop"] for stage in stages] == ["inner", "edge", "rollout", "outer"]
    assert [stage["runs"] for stage in stages] == [False, False, True, True]
    done = call(*common, *BRIEF, "--set", "outer.learning_rate=0.25")
    assert done.stdout == f"{tmp_path / 'out' / 'team'}\n"
    assert "1 steps of 4 rows, rate 0.25" in done.stderr and "because" in done.stderr
    assert "rollout loop: 1 of 1 steps" in done.stderr and "report.html" in done.stderr
    again = call("train", "--data", rows, team, "--output-dir", tmp_path / "out", *BRIEF, code=1)
    assert "--resume" in again.stderr
    whole = call(*common, *BRIEF, "--resume", "--json")
    assert [stage["loop"] for stage in json.loads(whole.stdout)["stages"]] == ["rollout", "outer"]
    saved = call(
        "train", tmp_path / "out" / "team", "--data", rows, "--output-dir", "x", "--dry-run"
    )
    assert "1  outer" in saved.stdout and "-  inner" in saved.stdout


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--set", "lerning_rate=1"], 2, "did you mean 'learning_rate'?"),
        (["--set", "outr.learning_rate=1"], 2, "did you mean 'outer'?"),
        (["--set", "inner.rounds=1"], 2, "unknown training argument 'rounds'"),
        (["--loop", "outr"], 1, "outer"),
        (["--resume"], 1, "holds no training"),
        (["--answer-field", "reply", "--loop", "outer"], 1, "reply"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_slips_are_named(
    team: Path, rows: Path, tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    common = ("train", team, "--data", rows, "--output-dir", tmp_path / "out", *BRIEF)
    assert said in words(call(*common, *options, code=code).stderr)
    assert not (tmp_path / "out" / "team").exists()


def test_loops_have_commands_with_their_own_options(team: Path, rows: Path, tmp_path: Path) -> None:
    helped = words(call("train", "--help").stdout)
    for name in ("TEAM", "inner", "edge", "outer"):
        assert f" {name} " in helped
    assert "--recipe" in call("train", "outer", "--help").stdout
    assert "--recipe" not in call("train", "inner", "--help").stdout
    assert "--loop" in call("train", team, "--help").stdout
    common = ("--data", rows, "--output-dir", tmp_path / "out", *BRIEF)
    assert "trained 2 links" in call("train", "edges", team, *common).stderr


PLUGIN = """
from latentmas.training import InnerConfig, InnerTrainer
from latentmas.training.loops import Choice, Loop, loops


class MineTrainer(InnerTrainer):
    loop = "mine"


@loops.register("mine")
class Mine(Loop):
    summary = "Train in a way of my own."
    order, steps, epochs = 15, 1, 1

    @staticmethod
    def parts():
        return MineTrainer, InnerConfig

    @staticmethod
    def choose(start):
        return Choice(True, "I want it")
"""


def test_a_loop_of_a_plugin_is_a_command(team: Path, rows: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "own_loop.py"
    plugin.write_text(PLUGIN)
    options = ["--data", rows, "--output-dir", tmp_path / "out"]

    def run(*more: object) -> str:
        words = map(str, ["--plugin", plugin, "train", *more, *options])
        code, said = run_alone("tests.processes:command", *words)
        assert code == 0, said
        return said

    assert "because I want it" in run(team, "--dry-run")
    assert "mine loop: 1 of 1 steps" in run("mine", team, "--steps", 1)


def interrupt(folder: str, *words: str) -> None:
    """The command line in a folder; Ctrl-C is pressed once the training has written its log."""

    def press() -> None:
        while not log.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    os.chdir(folder)
    log = Path("out of mine", "metrics.jsonl")
    threading.Thread(target=press, daemon=True).start()
    command(*words)


def test_ctrl_c_on_the_command_line_prints_the_command_that_resumes(tmp_path: Path) -> None:
    team = lm.Graph.from_spec(PLAN.graph).save(tmp_path / "team.yaml")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    words = ["train", "outer", str(team), "--data", str(rows), "--output-dir", "out of mine"]
    words += ["--steps", "100000", "--set", "logging_steps=1"]
    code, said = run_alone("tests.test_train_command:interrupt", str(tmp_path), *words)
    assert code == 130, said
    saved = sorted((tmp_path / "out of mine").glob("checkpoint-*"))
    assert len(saved) == 1 and saved[0].name in said
    line = next(line for line in said.splitlines() if "--resume" in line)
    assert line.strip().startswith("latentmas train outer ")
    assert "--output-dir 'out of mine'" in line and "Traceback" not in said
