"""What a new user meets on the command line: slips are told early, in the user's own words."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import typer

import latentmas as lm
from latentmas.cli.support.rows import write_rows
from latentmas.cli.support.training.flags import make_config
from latentmas.errors import CODES
from latentmas.runtime import System
from latentmas.testing import tiny_backbone
from tests.test_cli import call, plain, team, words  # noqa: F401  # fixtures, too


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", [{"question": "1+1?", "answer": "2"}])


# --- outputs ----------------------------------------------------------------------------------


def no_run(*_: object, **__: object) -> None:
    raise AssertionError("ran before it was known whether the result can be kept")


@pytest.mark.parametrize(
    ("command", "flag", "name"),
    [
        *(("run", flag, "out.html") for flag in ("-o", "--manifest", "--report")),
        *(("eval", flag, "out.json") for flag in ("-o", "--manifest")),
    ],
)
def test_outputs_are_checked_before_the_run(team, rows, tmp_path, monkeypatch, command, flag, name):  # noqa: F811
    monkeypatch.setattr(System, "run", no_run)
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / name
    error = call(command, team, "--data", rows, flag, path, code=1).stderr
    assert f"error: cannot write '{path}': Not a directory" in error


def test_a_manifest_is_checked_before_the_run(team, tmp_path):  # noqa: F811
    system = lm.Graph.load(team).compile().load()
    with pytest.raises(lm.DataError, match=f"cannot write '{tmp_path}': Is a directory"):
        system.run(["x"], manifest=tmp_path, on_event=no_run)
    deep = tmp_path / "new" / "deep" / "run.json"
    with pytest.raises(lm.LatentMASError, match="top_p"):
        system.run(["x"], manifest=deep, top_p=7.0)
    assert not (tmp_path / "new").exists()
    system.run(["x"], manifest=deep, max_new_tokens=1)
    assert deep.is_file() and [path.name for path in deep.parent.iterdir()] == ["run.json"]


def test_an_output_that_fails_is_named_as_the_user_did(team, tmp_path):  # noqa: F811
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "plan.json"
    assert f"'{path}'" in call("plan", team, "-o", path, code=1).stderr


# --- saved teams and graph files, each where the other is wanted --------------------------------


def test_check_plan_and_draw_take_a_saved_team_without_its_backbones(tmp_path):
    built = lm.templates.sequential(
        **{
            role: tiny_backbone("llama", 16, folder=tmp_path / "tiny")
            for role in ("planner", "critic", "solver")
        }
    )
    compiled = built.compile()
    saved = compiled.load().save_pretrained(tmp_path / "saved")
    shutil.rmtree(tmp_path / "tiny")
    (saved / "links.safetensors").unlink()
    for path in (saved, saved / "latentmas.json"):
        assert call("check", path).stdout.startswith("fine: sequential: 3 agents, 3 rounds")
    assert json.loads(call("check", saved, "--json").stdout)["digest"] == compiled.digest
    assert call("plan", saved).stdout == compiled.summary() + "\n"
    deep = lm.Plan.from_json(call("plan", saved, "--rounds", 5, "--json").stdout)
    assert deep == compiled.replace(rounds=5)
    assert "operations" in call("plan", saved, "--hardware", "h200").stdout
    call("draw", saved, "-o", tmp_path / "team.svg")
    assert (tmp_path / "team.svg").read_text() == compiled.svg()


def test_a_folder_that_is_no_saved_team_is_called_so(tmp_path):
    for command in (["check"], ["plan"], ["draw", "-o", tmp_path / "x.svg"]):
        assert "is not a saved team: it lacks" in call(*command, tmp_path, code=1).stderr
    problem = json.loads(call("check", tmp_path, "--json", code=1).stdout)["problems"][0]
    assert problem["code"] == "LM502" and "not a saved team" in problem["message"]


def test_a_file_in_place_of_a_saved_team(team, tmp_path):  # noqa: F811
    error = call("inspect", team, code=1).stderr
    assert f"LM502 '{team}' is a file, not a saved team: give the folder" in error
    assert "is a file" in call("diff", team, team, code=1).stderr
    system = lm.Graph.load(team).compile().load()
    (tmp_path / "common.py").write_text("x = 1")
    with pytest.raises(lm.WeightsError, match=r"LM502 .*common.py' holds no links: give the fold"):
        system.load_links(tmp_path / "common.py")


def test_prompt_files_that_are_missing_are_problems_of_the_graph(tmp_path):
    path = tmp_path / "math.yaml"
    call("new", "math", "--output", tmp_path)
    (tmp_path / "prompts" / "math" / "planner.jinja").unlink()
    (tmp_path / "prompts" / "math" / "solver.jinja").write_bytes(b"\xff")
    path.write_text(path.read_text().replace("rounds: 3", "runds: 3"))
    problems = json.loads(call("check", path, "--json", code=1).stdout)["problems"]
    assert [(p["code"], p["path"]) for p in problems] == [
        *(("LM100", "agent planner"), ("LM100", "agent solver"), ("LM100", "runds"))
    ]
    missing = problems[0]["message"]
    assert missing == (
        "prompt_file 'prompts/math/planner.jinja' cannot be read: No such file or directory"
    )
    error = call("check", path, code=1).stderr
    assert missing in error and "write the text as `prompt`" in error
    assert "cannot read graph file" not in error


# --- training ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("learning_rate=abc", "learning_rate takes a number, found 'abc'"),
        ("learning_rate=true", "learning_rate takes a number, found 'true'"),
        ("max_steps=1.5", "max_steps takes a whole number, found '1.5'"),
        ("bf16=1", "bf16 takes true or false, found '1'"),
        ("latent_steps=many", "latent_steps takes a whole number, found 'many'"),
        ("run_name=[a]", "run_name takes text, found '[a]'"),
    ],
)
def test_a_training_argument_of_another_type_is_named(given, said):
    from latentmas.training import OuterConfig

    with pytest.raises(typer.BadParameter, match=re.escape(f"--set {said.split()[0]}: {said}")):
        make_config(OuterConfig, {}, [given], {"use_cpu": True})


def test_training_arguments_take_numbers_however_they_are_written():
    from latentmas.training import OuterConfig

    sets = ["max_steps=1e3", "learning_rate=1", "run_name=7", "latent_steps=null", "rounds=[1, 2]"]
    config = make_config(OuterConfig, {}, sets, {"use_cpu": True})
    assert (config.max_steps, config.learning_rate) == (1000, 1)
    assert (config.run_name, config.latent_steps, config.rounds) == ("7", None, [1, 2])


def test_a_slip_in_set_is_a_usage_error_and_the_log_is_short(team, rows, tmp_path):  # noqa: F811
    common = ("train", "inner", team, "--data", rows, "--output-dir", tmp_path / "out")
    error = words(call(*common, "--set", "learning_rate=abc", code=2).stderr)
    assert "learning_rate takes a number, found 'abc'" in error
    shown = call(*common, "--steps", 1, "--set", "logging_steps=1").stderr
    line = next(line for line in shown.splitlines() if line.startswith("inner loop: 1 of 1 steps"))
    assert "loss" in line and "target tokens/s" in line and len(line) < 100
    assert "grad_norm/" in (tmp_path / "out" / "metrics.jsonl").read_text()


# --- answers, options and codes -----------------------------------------------------------------


def test_several_answers_are_json_lines_with_their_numbers(team):  # noqa: F811
    drawn = ("--do-sample", "--seed", 5)
    shown = call("run", team, "x", *drawn, "--num-return-sequences", 3).stdout
    system = lm.Graph.load(team).compile().load(seed=5)
    expected = system.run(["x"], do_sample=True, seed=5, num_return_sequences=3).sequences[0]
    assert [json.loads(line) for line in shown.splitlines()] == [
        {"number": i, "prediction": text} for i, text in enumerate(expected, start=1)
    ]
    one = system.run(["x"], do_sample=True, seed=5).texts[0]
    assert call("run", team, "x", *drawn).stdout == f"{one}\n"


def test_hints_are_in_the_words_of_the_place(team):  # noqa: F811
    error = words(call("run", team, "x", "--num-return-sequences", 3, code=2).stderr)
    assert "--num-return-sequences 3 would give 3 equal answers" in error and "=True" not in error
    error = call("run", team, "x", "--latent-steps", 0, code=1).stderr
    assert "set the agent's allow_empty to true" in error and "=True" not in error


def test_a_report_is_html(team, tmp_path):  # noqa: F811
    path = tmp_path / "x.pdf"
    error = words(call("run", team, "x", "--report", path, code=2).stderr)
    assert "must end in .html, found 'x.pdf'" in error and not path.exists()


@pytest.mark.parametrize(
    ("template", "count", "said"),
    [
        ("mixture", 5, "takes 4 (math, code, science, summarizer)"),
        ("distillation", 3, "takes 2 (expert, learner)"),
        ("sequential_light", 1, "takes none: it comes with its models"),
    ],
)
def test_new_refuses_backbones_that_fit_no_role(tmp_path, template, count, said):
    more = [text for i in range(count) for text in ("--backbone", f"org/model-{i}")]
    new = ("new", "x", "--template", template, "--output", tmp_path)
    error = words(call(*new, *more, code=2).stderr)
    assert f"given {count} times" in error and said in error
    assert not any(tmp_path.iterdir())
    call(*new, *more[2:])


def test_a_line_names_all_codes_and_the_command_takes_them(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("agents: [{name: a, backbone: b, prompt: '{{ x }}'}]\ninputs: [q]\n")
    more = call("check", path, code=1).stderr.splitlines()[-1]
    codes = more.removeprefix("more: latentmas errors ").split()
    assert len(codes) > 2 and set(codes) < CODES.keys()
    text = call("errors", *codes).stdout
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == codes
    told = json.loads(call("errors", *codes, "--json").stdout)["codes"]
    assert [section["code"] for section in told] == codes
    assert "did you mean" in words(call("errors", codes[0], "LM3O2", code=2).stderr)


def test_the_summary_tells_rounds_that_are_left_out():
    def summary(rounds: int, *, feedback: bool) -> str:
        tiny = tiny_backbone("llama", 16)
        graph = lm.Graph("pair", inputs=["q"], rounds=rounds)
        back = "{% if back %}{{ back }}{% endif %}"
        graph.add_agent("a", tiny, prompt="{{ q }}" + back * feedback)
        graph.add_agent("b", tiny, prompt="{{ a }}")
        graph.connect("a", "b")
        if feedback:
            graph.feedback("b", "a.back")
        return graph.output("b").compile().summary()

    assert "rounds 1-2 are left out: no feedback edge" in summary(3, feedback=False)
    assert "round 1 is left out" in summary(2, feedback=False)
    assert "left out" not in summary(1, feedback=False) + summary(3, feedback=True)
