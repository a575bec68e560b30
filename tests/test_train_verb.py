"""One verb for training: which loops a team goes through, in which folders, and how it resumes."""

from __future__ import annotations

import inspect
import io
import json
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

import latentmas as lm
from latentmas.training import plan_training
from latentmas.training.loops import loops
from tests.processes import run_processes
from tests.test_training import PLAN, ROWS, changed, tiny, weights
from tests.test_watching import Interrupts

BRIEF: dict[str, Any] = {"max_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 1}


def team(inner: str = "soft_token", **edge: Any) -> lm.Plan:
    """A reader that speaks to an answerer over one edge."""
    graph = lm.Graph("relay", inputs=["question"], rounds=1, latent_steps=2)
    one, two = tiny("llama", 16), tiny("llama", 32, seed=1)
    graph.add_agent("reader", one, prompt="{{ question }}", inner=inner)
    graph.add_agent("writer", two, prompt="{{ reader }}", inner=inner)
    graph.connect("reader", "writer", **edge)
    return graph.output("writer").compile()


RANDOM = team(inner="recursive", link="recursive")
SOFT = team()
INPUTS = [{"question": "a"}] * 4


def chosen(plan: lm.Plan, rows: Any, **options: Any) -> list[str]:
    return [stage.loop for stage in plan_training(plan, rows, **options).running]


# --- the choice -------------------------------------------------------------------------------


def test_random_links_begin_on_kept_rollouts_and_working_links_at_the_answer() -> None:
    assert chosen(RANDOM, ROWS) == ["rollout", "outer"]
    first = plan_training(RANDOM, ROWS).running[0]
    assert first.settings["refresh_steps"] == 100 and first.rate == 3e-3
    assert chosen(SOFT, ROWS) == ["outer"]


def test_random_links_of_single_latent_steps_need_no_rollouts() -> None:
    one = RANDOM.replace(latent_steps=1)
    assert chosen(one, ROWS) == ["inner", "edge", "outer"]
    assert chosen(one, INPUTS) == ["edge"]


def test_the_fields_of_the_rows_decide() -> None:
    assert chosen(RANDOM, INPUTS) == ["rollout"]
    texts = [{"question": "a", "reader": "b", "writer": "c"}] * 4
    assert chosen(RANDOM, texts) == ["rollout"]
    found = plan_training(RANDOM, texts)
    assert found.running[0].settings["targets"] == {"reader": "reader", "writer": "writer"}
    assert "no field 'answer'" in str(found)
    single = str(plan_training(RANDOM.replace(latent_steps=1), texts))
    assert "reader from 'reader'" in single and "no field 'answer'" in single
    renamed = [{"question": "a", "reply": "b"}] * 4
    assert chosen(SOFT, renamed, answer_field="reply") == ["outer"]
    assert chosen(SOFT, renamed, columns={"answer": "reply"}) == ["outer"]


def test_links_that_were_trained_need_the_outer_loop_alone(tmp_path: Path) -> None:
    system = PLAN.load()
    lm.train(system, ROWS, output_dir=tmp_path, loops=["inner", "edge"], progress=False, **BRIEF)
    assert chosen(PLAN, ROWS, history=system.history) == ["outer"]


def test_without_anything_to_train_the_reasons_are_told() -> None:
    plan = team(residual=False)
    with pytest.raises(lm.LatentMASError, match=r"LM402.*outer: no outer link has weights"):
        plan_training(plan, ROWS)
    with pytest.raises(lm.LatentMASError, match=r"LM402.*no field 'answer'"):
        plan_training(SOFT, INPUTS)


def test_slips_are_named() -> None:
    with pytest.raises(lm.UnknownNameError, match="'outer'"):
        plan_training(PLAN, ROWS, loops=["outr"])
    with pytest.raises(lm.UnknownNameError, match="'inner'"):
        plan_training(PLAN, ROWS, settings={"iner": {}})
    with pytest.raises(TypeError, match="did you mean 'learning_rate'"):
        plan_training(PLAN, ROWS, lerning_rate=1.0)
    with pytest.raises(lm.DataError, match="lacks the field 'question'"):
        plan_training(PLAN, [{"answer": "b"}])


def test_steps_follow_the_data_and_what_is_asked_for() -> None:
    def steps(rows: int, **options: Any) -> list[int]:
        return [s.steps for s in plan_training(PLAN, ROWS[:1] * rows, **options).running]

    assert steps(16) == [75 * 1, 5]
    assert steps(16_000) == [600, 150]
    assert steps(64, num_train_epochs=3) == [12, 12]
    assert steps(64, max_steps=7, settings={"outer": {"max_steps": 3}}) == [7, 3]
    assert steps(16, loops=["inner", "edge", "outer"]) == [10, 10, 5]


# --- the training -----------------------------------------------------------------------------


def test_each_loop_has_a_folder_and_the_team_is_saved(tmp_path: Path, capfd: Any) -> None:
    done = lm.train(PLAN.load(), ROWS, output_dir=tmp_path, eval_rows=ROWS[:2], **BRIEF)
    said = capfd.readouterr()
    assert said.out == "" and "because inner.one, inner.two start at random" in said.err
    assert [stage.folder.name for stage in done.stages] == ["1-rollout", "2-outer"]
    assert all(stage.steps == 2 and "eval_loss" in stage.scores for stage in done.stages)
    again = lm.System.from_pretrained(done.team)
    assert [record.loop for record in again.history] == ["rollout", "outer"]
    assert lm.training_report(tmp_path).exists()


def test_it_equals_the_loops_one_after_another(tmp_path: Path) -> None:
    system, single = PLAN.load(), PLAN.load()
    lm.train(system, ROWS, output_dir=tmp_path / "verb", progress=False, **BRIEF)
    for stage in plan_training(PLAN, ROWS, **BRIEF).running:
        trainer, kind = loops.get(stage.loop).parts()
        own = {"output_dir": str(tmp_path / stage.loop), "use_cpu": True, "progress": False}
        config: Any = kind(**stage.settings, **own)
        trainer(single, config, train_dataset=ROWS).train()
    assert changed(weights(system), weights(single)) == set()


@pytest.mark.parametrize("step", [1, 3, 4])
def test_an_interrupted_training_resumes_at_its_loop(tmp_path: Path, step: int) -> None:
    """Ctrl-C in the first loop, in the second, and at the end of the second."""

    class Counts(Interrupts):
        seen = 0

        def on_step_begin(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            Counts.seen += 1
            if Counts.seen == step:
                self.step = state.global_step + 1
                super().on_step_begin(args, state, control, **options)

    options: dict[str, Any] = {"loops": ["inner", "edge"], "progress": False, **BRIEF}
    whole, system = PLAN.load(), PLAN.load()
    lm.train(whole, ROWS, output_dir=tmp_path / "whole", **options)
    watchers: list[TrainerCallback] = [Counts(0)]
    with pytest.raises(lm.TrainingInterrupted, match=r"lm\.train\(.*resume=True\)"):
        lm.train(system, ROWS, output_dir=tmp_path / "out", callbacks=watchers, **options)
    with pytest.raises(lm.DataError, match=r"holds a training .*resume=True"):
        lm.train(system, ROWS, output_dir=tmp_path / "out", **options)
    for again in (PLAN.load(), system):  # a new session, or the same one
        done = lm.train(again, ROWS, output_dir=tmp_path / "out", resume=True, progress=False)
        assert [stage.loop for stage in done.stages] == ["inner", "edge"]
        assert changed(weights(whole), weights(again)) == set()
        assert [record.loop for record in again.history] == ["inner", "edge"]


def test_resuming_needs_the_same_team_and_rows(tmp_path: Path) -> None:
    system = PLAN.load()
    with pytest.raises(lm.DataError, match="holds no training"):
        lm.train(system, ROWS, output_dir=tmp_path, resume=True)
    lm.train(system, ROWS, output_dir=tmp_path, loops=["inner"], progress=False, **BRIEF)
    with pytest.raises(lm.DataError, match="the data is not the one"):
        lm.train(system, ROWS[:4], output_dir=tmp_path, resume=True)
    with pytest.raises(lm.DataError, match="the team is not the one"):
        lm.train(RANDOM.load(), ROWS, output_dir=tmp_path, resume=True)
    (tmp_path / "stages.json").write_text(json.dumps({"team": 1}))
    with pytest.raises(lm.DataError, match=r"stages\.json' is damaged|not the one"):
        lm.train(system, ROWS, output_dir=tmp_path, resume=True)


# --- the registry -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", loops.names())
def test_every_loop_keeps_its_contract(name: str, tmp_path: Path) -> None:
    loop = loops.get(name)
    trainer, kind = loop.parts()
    make: Any = trainer
    assert make.loop == name and loop.summary.endswith(".") and loop.steps > 0 < loop.epochs
    fields = {field for field in loop.flags if field != "dry_run"}
    assert fields <= set(kind.__dataclass_fields__)
    assert ("dry_run" in loop.flags) == hasattr(make, "dry_run")
    given = inspect.signature(make).parameters.values()
    assert [(p.name, p.kind.name, p.default) for p in given] == [
        ("system", "POSITIONAL_OR_KEYWORD", inspect.Parameter.empty),
        ("config", "POSITIONAL_OR_KEYWORD", None),
        ("train_dataset", "KEYWORD_ONLY", inspect.Parameter.empty),
        ("eval_dataset", "KEYWORD_ONLY", None),
        ("callbacks", "KEYWORD_ONLY", None),
    ]
    config: Any = kind(output_dir=str(tmp_path), use_cpu=True, **BRIEF)
    before = weights(system := PLAN.load())
    rows = [{**row, "one": "x", "two": "y"} for row in ROWS]
    make(system, config, train_dataset=rows, eval_dataset=rows[:2], callbacks=[]).train()
    assert changed(before, weights(system))
    assert system.history[-1].loop == name
    assert (tmp_path / "metrics.jsonl").exists() and (tmp_path / "training.json").exists()


def train_on_each_rank(source: str, folder: str, options: dict[str, Any]) -> str:
    """What a process of several says while it trains."""
    graph = lm.Graph("two", inputs=["question"], rounds=1, latent_steps=1)
    for name, prompt in (("reader", "{{ question }}"), ("writer", "{{ reader }}")):
        graph.add_agent(name, lm.Backbone(source), prompt=prompt, inner="recursive")
    graph.connect("reader", "writer", link="recursive")
    rows = [{"question": f"{i}+2", "answer": f"={i + 2}"} for i in range(8)]
    with redirect_stderr(io.StringIO()) as said:
        lm.train(graph.output("writer").compile().load(), rows, output_dir=folder, **options)
    return said.getvalue()


def test_several_processes_train_one_team(tmp_path: Path) -> None:
    """One of them writes; the others wait for it where they must."""
    work = "tests.test_train_verb:train_on_each_rank"
    for options in ({"loops": ["inner", "edge"], "max_steps": 2}, {"resume": True}):
        source, folder = tiny("llama", 16).source, str(tmp_path / "out")
        said = run_processes(2, work, source, folder, options)
        assert "".join(said).count("because ") == 2
    saved = lm.System.from_pretrained(tmp_path / "out" / "team")
    assert [record.manifest["processes"] for record in saved.history] == [2, 2]
