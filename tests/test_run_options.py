"""`RunOptions`: one model behind `System.run`, `evaluate`, manifests, `rerun` and the commands."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.engine.executors import executors
from latentmas.engine.executors.cached import Cached
from latentmas.evaluation import evaluate
from latentmas.generation.controllers import RETRIES
from latentmas.io import RunManifest
from latentmas.plan import item_type, value_types
from latentmas.runtime.options import RECORDABLE
from tests.teams import sequential

FIELDS = lm.RunOptions.model_fields
ROWS = [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(3)]
DRAWN = {"do_sample": True, "temperature": 2.0, "seed": 5, "max_new_tokens": 4}
GROUP: Any = typer.main.get_command(app)


@pytest.fixture(scope="module")
def system() -> lm.System:
    return sequential(rounds=1, latent_steps=2).compile().load(seed=3)


def words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


# --- one model, many doors ----------------------------------------------------------------------


def test_run_has_every_field_as_a_keyword_with_its_help() -> None:
    parameters = inspect.signature(lm.System.run).parameters
    for name, field in FIELDS.items():
        assert parameters[name].default == field.default
        assert field.description and words(field.description) in words(str(lm.System.run.__doc__))
    own = {"samples", "options", "on_event", "on_text", "edit_message", "manifest"}
    assert own <= set(parameters)


@pytest.mark.parametrize(
    ("command", "left_out"),
    [("run", {"record"}), ("eval", {"record"}), ("bench", {"record", "executor", "batch_size"})],
)
def test_commands_have_every_field_as_an_option_with_its_help(
    command: str, left_out: set[str]
) -> None:
    options = {param.name: param for param in GROUP.get_command(None, command).params}
    assert FIELDS.keys() - options.keys() == left_out
    for name in FIELDS.keys() - left_out - {"seed"}:  # its seed starts untrained links, too
        text = words(FIELDS[name].description).partition("; in Python")[0].partition(" Default:")[0]
        assert options[name].help.startswith(text.removesuffix("."))


def test_names_that_options_take_are_those_there_are() -> None:
    def names(field: str) -> set[str]:
        return set(get_args(item_type(value_types(FIELDS[field])[0])))

    assert names("retry") == set(RETRIES)
    assert names("record") == set(RECORDABLE)
    assert all(name in str(FIELDS["executor"].description) for name in executors.names())


def test_the_command_line_passes_options_on(
    system: lm.System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = system.save_pretrained(tmp_path / "team")
    heard: list[lm.RunOptions] = []

    def run(self: lm.System, samples: Any, *, options: lm.RunOptions, **_: Any) -> None:
        heard.append(options)
        raise lm.LatentMASError("enough")

    monkeypatch.setattr(lm.System, "run", run)
    given = (
        "--do-sample --top-k 3 --min-p 0.1 --refill-threshold 0.5 --stop a --stop b --retry math"
    )
    given += " --position-mode column --rounds 2 --on-error keep --batch-size 7"
    done = CliRunner().invoke(app, ["run", str(team), "x", *given.split()])
    assert "enough" in done.stderr
    assert heard == [
        lm.RunOptions(
            do_sample=True,
            top_k=3,
            min_p=0.1,
            refill_threshold=0.5,
            stop=("a", "b"),
            retry="math",
            position_mode="column",
            rounds=2,
            on_error="keep",
            batch_size=7,
            executor="auto",
        )
    ]


# --- problems -----------------------------------------------------------------------------------


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(lm.LatentMASError) as caught:
        lm.RunOptions(temperature=0, top_p=2, position_mode="colum", seed=[1, "x"])
    said = str(caught.value)
    assert said.startswith("4 options are invalid:\n")
    assert "temperature is 0; give a number above 0" in said
    assert "top_p is 2; give a number above 0 and at most 1" in said
    assert "unknown position_mode 'colum'; did you mean 'column'?" in said
    assert "seed[1] is 'x'; give a whole number" in said


def test_options_that_do_not_go_together_are_all_named(system: lm.System) -> None:
    with pytest.raises(lm.LatentMASError) as caught:
        system.run(["x"], top_k=4, num_return_sequences=3)
    assert "top_k would have no effect" in str(caught.value)
    assert "num_return_sequences=3 would give 3 equal answers" in str(caught.value)


def test_the_command_line_names_flags() -> None:
    bad = ["run", "sequential_light", "x", "--temperature", "0", "--top-p", "2"]
    done = CliRunner().invoke(app, bad)
    assert done.exit_code == 2
    assert "--temperature is 0.0; give a number above 0" in words(done.stderr)
    assert "--top-p is 2.0; give a number above 0 and at most 1" in words(done.stderr)
    done = CliRunner().invoke(app, ["run", "sequential_light", "x", "--min-p", "0.5"])
    assert done.exit_code == 2
    assert "add --do-sample, or leave --min-p out" in words(done.stderr)


def test_a_misspelt_option_names_the_closest(system: lm.System) -> None:
    for call in (lm.RunOptions, lambda **o: system.run(["x"], **o)):
        with pytest.raises(TypeError, match="did you mean 'temperature'"):
            call(temprature=0.5)
    with pytest.raises(TypeError, match=r"evaluate takes no .* did you mean 'batch_size'"):
        evaluate(system, ROWS, batchsize=3)
    with pytest.raises(TypeError, match=r"give lm\.RunOptions"):
        system.run(["x"], options={"seed": 3})


# --- options as a whole -------------------------------------------------------------------------


def test_options_as_a_whole_are_as_keywords_which_win(system: lm.System) -> None:
    options = lm.RunOptions(**DRAWN)
    keywords = system.run(ROWS, **DRAWN).token_ids
    assert system.run(ROWS, options=options).token_ids == keywords
    other = system.run(ROWS, options=options, seed=6).token_ids
    assert other == system.run(ROWS, **{**DRAWN, "seed": 6}).token_ids != keywords
    evaluated = evaluate(system, ROWS, options=options)
    assert evaluated.sequences == evaluate(system, ROWS, **DRAWN).sequences
    assert evaluated.sequences != evaluate(system, ROWS, **{**DRAWN, "seed": 6}).sequences


def test_options_are_plain_json() -> None:
    options = lm.RunOptions(seed=[1, 2], stop="x", max_new_tokens={"a": 3}, record="messages")
    assert lm.RunOptions(**json.loads(options.model_dump_json())) == options
    assert options.seed == (1, 2) and options.stop == ("x",)


# --- manifests ----------------------------------------------------------------------------------


def test_a_manifest_holds_the_options_with_what_was_chosen(
    system: lm.System, tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    system.run(ROWS, manifest=path, **DRAWN)
    told = RunManifest.load(path).arguments
    assert told == lm.RunOptions(**DRAWN, executor="cached", refill_threshold=1.0)
    assert json.loads(path.read_text())["arguments"].keys() == FIELDS.keys()


def test_manifests_of_older_versions_are_read(system: lm.System, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    system.run(ROWS, manifest=path)
    told = json.loads(path.read_text())
    del told["arguments"]["record"]
    for version, share in ((1, 0.5), (2, 0.25), (3, 0.75)):
        old = {**told["arguments"], "refill": share}
        del old["refill_threshold"]
        path.write_text(json.dumps(told | {"version": version, "arguments": old}))
        assert RunManifest.load(path).arguments.refill_threshold == share
        assert lm.rerun(path, team=system).equal
    path.write_text(json.dumps(told | {"arguments": old}))
    with pytest.raises(lm.DataError, match=r"LM512 .*refill"):
        RunManifest.load(path)  # the old name in a current manifest
    del told["arguments"]["refill_threshold"]
    told["arguments"]["top_p"] = 0.5  # recorded once, though nothing was sampled
    for version in (1, 2):
        path.write_text(json.dumps(told | {"version": version}))
        options = RunManifest.load(path).arguments
        assert (options.refill_threshold, options.top_p, options.record) == (1.0, 1.0, ())
        assert lm.rerun(path, team=system).equal
    path.write_text(json.dumps(told))
    with pytest.raises(lm.DataError, match=r"LM512 .*top_p would have no effect"):
        RunManifest.load(path)


def test_rerun_takes_changed_options(system: lm.System, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    system.run(ROWS, manifest=path, **DRAWN)
    assert lm.rerun(path, team=system, executor="reference", batch_size=1).equal
    assert not lm.rerun(path, team=system, seed=6).equal
    assert not lm.rerun(path, team=system, temperature=5.0).equal  # judged with what was drawn
    with pytest.raises(TypeError, match=r"rerun takes no .* did you mean 'batch_size'"):
        lm.rerun(path, team=system, batchsize=1)
    done = CliRunner().invoke(app, ["rerun", str(path), "--executor", "static"])
    assert done.exit_code == 0 and done.stdout.startswith("equal: 3 samples")


@pytest.mark.parametrize(
    "given",
    [{"refill_threshold": RETRIES["math"]}, {"top_k": RETRIES["math"]}, {"retry": Cached()}],
)
def test_objects_stand_for_their_own_option_only(system: lm.System, given: dict) -> None:
    with pytest.raises(lm.LatentMASError, match=next(iter(given))):
        system.run(ROWS, **given)


def test_strings_may_come_from_any_iterable_and_seeds_may_not() -> None:
    assert lm.RunOptions(stop=(word for word in ("a", "b"))).stop == ("a", "b")
    with pytest.raises(lm.LatentMASError, match="seed"):
        lm.RunOptions(seed={3, 1}, do_sample=True)
