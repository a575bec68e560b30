"""The command line: each command with good and bad input, exit codes, streams, light imports."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli import graph
from latentmas.cli.app import app
from latentmas.cli.support import new_team as _new
from latentmas.cli.support.console import dumps, emit_json
from latentmas.cli.support.progress import run_progress
from latentmas.cli.support.rows import write_rows
from latentmas.cli.support.training.flags import parse_value
from latentmas.spec import GraphSpec, read_jsonl
from latentmas.testing import tiny_backbone

COMMANDS = [
    *(["templates"], ["new"], ["check"], ["plan"], ["draw"], ["schema"], ["run"], ["train"]),
    *(["train", "inner"], ["train", "rollout"], ["train", "outer"], ["report"], ["demo"], ["env"]),
    *(["rerun"], ["push"], ["inspect"], ["diff"]),
    *(["eval"], ["bench"], ["errors"]),
]
BROKEN = """\
name: broken
inputs: [question, hint]
backbones: {tiny: {source: SOURCE}}
agents:
  - {name: planner, backbone: tinny, prompt: "{{ question }}"}
  - {name: solver, backbone: tiny, prompt: "{{ question }} {{ plan }}"}
edges:
  - {source: planner, target: solver, slot: paln}
output: solver
"""


def call(*arguments: object, code: int = 0):
    """Run a command in this process and check its exit code."""
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    assert "\x1b" not in result.stdout + result.stderr, "colour without a terminal"
    if code and "--debug" not in arguments:
        assert "Traceback" not in result.stderr
    return result


def words(text: str) -> str:
    """A usage error without the box round it."""
    return " ".join(text.replace("│", " ").split())


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph file on tiny backbones."""
    small, wide = tiny_backbone("llama", 16), tiny_backbone("qwen3", 32)
    built = lm.templates.sequential(
        planner=small,
        critic=wide,
        solver=small,
        rounds=2,
        latent_steps=2,
        max_new_tokens=4,
        link="recursive",
        inner="recursive",
    )
    return built.save(tmp_path_factory.mktemp("team") / "team.yaml")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    data = [{"question": f"{i}+1?", "answer": str(i + 1)} for i in range(3)]
    return write_rows(tmp_path / "rows.jsonl", data)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN.replace("SOURCE", tiny_backbone("llama", 16).source))
    return path


# --- the whole ------------------------------------------------------------------------------


def test_help_and_light_commands_import_no_torch():
    script = f"""
import sys
from typer.testing import CliRunner
from latentmas.cli.app import app
calls = [["--help"], ["--version"], ["templates"], ["templates", "--json"], ["schema"]]
calls += [[*command, "--help"] for command in {COMMANDS!r}]
for arguments in calls:
    assert CliRunner().invoke(app, arguments).exit_code == 0, arguments
heavy = [name for name in ("torch", "transformers", "networkx") if name in sys.modules]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=600)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_helps_with_an_example(command):
    text = call(*command, "--help").stdout
    assert command == ["train"] or f"Example: latentmas {' '.join(command)}" in words(text)


def test_the_module_runs_and_says_what_is_wrong_in_one_line():
    command = [sys.executable, "-m", "latentmas", "check", "no-such-file.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "error: cannot read graph file 'no-such-file.yaml': No such file or directory"
    ]


def test_version_and_usage_errors():
    assert call("--version").stdout == f"latentmas {lm.__version__}\n"
    assert "No such command" in call("rum", code=2).stderr
    assert "Missing argument" in call("check", code=2).stderr
    assert "No such option" in call("schema", "--nope", code=2).stderr


def test_tracebacks_are_for_debug_only(tmp_path):
    path = tmp_path / "x.yaml"
    assert call("check", path, code=1).stderr.startswith("error: cannot read")
    assert "Traceback" in call("--debug", "check", path, code=1).stderr


def test_a_bug_is_called_one(monkeypatch):
    def fail() -> list[str]:
        raise RuntimeError("boom")

    monkeypatch.setattr(graph, "names", fail)
    line = call("templates", code=1).stderr
    assert "boom" in line and "bug in latentmas" in line and "--debug" in line
    assert "RuntimeError: boom" in call("--debug", "templates", code=1).stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError("full"), 1, "out of memory"),
        (PermissionError(13, "Permission denied", "x"), 1, "Permission denied"),
    ],
)
def test_other_ends(monkeypatch, error, code, said):
    def fail() -> list[str]:
        raise error

    monkeypatch.setattr(graph, "names", fail)
    result = call("templates", code=code)
    assert said in result.stderr and "bug" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


# --- graphs ---------------------------------------------------------------------------------


def test_templates():
    assert {line.split()[0] for line in call("templates").stdout.splitlines()} == {
        *lm.templates.names()
    }
    found = {t["name"]: t for t in json.loads(call("templates", "--json").stdout)["templates"]}
    assert found["sequential"]["roles"] == ["planner", "critic", "solver"]
    assert all(template["summary"] for template in found.values())


@pytest.mark.parametrize("template", lm.templates.names())
def test_new_writes_what_the_template_declares(template, tmp_path):
    result = call("new", "math", "--template", template, "--output", tmp_path)
    path = tmp_path / "math.yaml"
    expected = _new.graph_of(template, "math", _new.DEMO_BACKBONES).spec()
    assert GraphSpec.load(path) == expected
    assert "rounds: 3" in path.read_text()
    written = {Path(line) for line in result.stdout.splitlines()}
    prompts = {tmp_path / "prompts" / "math" / f"{agent.name}.jinja" for agent in expected.agents}
    assert written == {path, *prompts, tmp_path / "graph.schema.json"} and all(
        file.is_file() for file in written
    )
    assert f"latentmas check {path}" in result.stderr
    assert call("check", path).stdout.startswith("fine: math:")


def test_new_on_models_of_ones_own_compiles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_backbone("llama", 16, folder="tiny/a")
    tiny_backbone("qwen3", 32, folder="tiny/b")
    models = ("--backbone", "./tiny/a", "--backbone", "tiny/b")
    call("new", "pair", "--template", "distillation", "--output", "deep/in", *models)
    assert "source: ../../tiny/b" in Path("deep/in/pair.yaml").read_text()
    call("new", "one", *models)
    assert "source: ./tiny/a" in Path("one.yaml").read_text()
    monkeypatch.chdir("/")
    assert call("check", tmp_path / "deep/in/pair.yaml").stdout.startswith("fine: pair: 2 agents")
    assert call("check", tmp_path / "one.yaml").stdout.startswith("fine: one: 3 agents")


def test_teams_in_one_folder_keep_their_prompts(tmp_path):
    call("new", "first", "--output", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (mine := tmp_path / "prompts" / "first" / "planner.jinja").write_text("mine: {{ question }}")
    call("new", "second", "--output", tmp_path)
    call("new", "second", "--output", tmp_path, "--force")
    assert mine.read_text() == "mine: {{ question }}"
    assert all(path.read_bytes() == was for path, was in before.items() if path != mine)
    assert "prompts/second/" in (tmp_path / "second.yaml").read_text().splitlines()[1]


def test_new_does_not_overwrite(tmp_path):
    call("new", "math", "--output", tmp_path)
    (tmp_path / "math.yaml").write_text("mine")
    (tmp_path / "prompts" / "math" / "critic.jinja").unlink()
    error = call("new", "math", "--output", tmp_path, code=1).stderr
    assert "math.yaml" in error and "planner.jinja" in error and "--force" in error
    assert (tmp_path / "math.yaml").read_text() == "mine"
    assert not (tmp_path / "prompts" / "math" / "critic.jinja").exists()
    call("new", "math", "--output", tmp_path, "--force")
    assert "name: math" in (tmp_path / "math.yaml").read_text()


def test_new_refuses_unknown_templates_and_names_that_are_paths(tmp_path):
    error = call("new", "x", "--template", "sequentail", "--output", tmp_path, code=1).stderr
    assert "did you mean 'sequential'?" in error
    for name in ("../x", "a/b", ".hidden"):
        assert "file name" in words(call("new", name, "--output", tmp_path, code=2).stderr)
    assert not any(tmp_path.iterdir())


def test_check(team, broken):
    assert call("check", team).stdout.startswith("fine: sequential: 3 agents, 2 rounds, 6 links")
    facts = json.loads(call("check", team, "--json").stdout)
    assert facts["ok"] and facts["problems"] == []
    assert facts["digest"] == lm.Graph.load(team).compile().digest


def test_check_prints_every_problem_with_its_fix(broken):
    with pytest.raises(lm.GraphError) as caught:
        lm.Graph.load(broken).compile()
    problems = caught.value.problems
    assert len({problem.code for problem in problems}) >= 4
    result = call("check", broken, code=1)
    assert result.stdout == ""
    for problem in problems:
        assert problem.message in result.stderr and f"fix: {problem.hint}" in result.stderr
    found = json.loads(call("check", broken, "--json", code=1).stdout)
    assert found == {"ok": False, "problems": [problem.to_dict() for problem in problems]}


@pytest.mark.parametrize("text", ["a: [1", "- 1", "agents: 3\nnope: 1", "a: 1\na: 2"])
def test_check_of_files_that_are_no_graph(text, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert "LM100" in call("check", path, code=1).stderr
    found = json.loads(call("check", path, "--json", code=1).stdout)
    assert not found["ok"] and {p["code"] for p in found["problems"]} == {"LM100"}


def test_check_json_of_a_missing_file(tmp_path):
    found = json.loads(call("check", tmp_path / "no.yaml", "--json", code=1).stdout)
    assert "No such file" in found["problems"][0]["message"]


def test_plan(team, broken, tmp_path):
    compiled = lm.Graph.load(team).compile()
    assert call("plan", team).stdout == compiled.summary() + "\n"
    assert lm.Plan.from_json(call("plan", team, "--json").stdout) == compiled
    out = tmp_path / "new" / "plan.json"
    deep = call("plan", team, "--rounds", 5, "-o", out)
    assert "rounds 1-4" in deep.stdout and str(out) in deep.stderr
    assert lm.Plan.open(out) == compiled.replace(rounds=5)
    assert "LM113" in call("plan", team, "--rounds", 1000, code=1).stderr
    assert "LM105" in call("plan", broken, code=1).stderr
    call("plan", team, "--rounds", 0, code=2)


def test_draw(team, tmp_path):
    forms = {"a.svg": "<svg", "a.mmd": "---\ntitle", "a.html": "<!doctype", "a.dot": "digraph"}
    for name, start in forms.items():
        assert call("draw", team, "-o", tmp_path / name).stdout.strip() == str(tmp_path / name)
        assert (tmp_path / name).read_text().startswith(start)
    assert call("draw", team, "-o", tmp_path / "a.png").stdout
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert ".mmd or .dot" in call("draw", team, "-o", tmp_path / "a.pdf", code=1).stderr


def test_schema():
    assert json.loads(call("schema").stdout) == GraphSpec.json_schema()


# --- run ------------------------------------------------------------------------------------


def test_run_a_question(team):
    system = lm.Graph.load(team).compile().load()
    result = call("run", team, "3+4?")
    assert result.stdout == system("3+4?").text + "\n"
    assert "untrained" in result.stderr
    assert call("run", team, "--field", "question=3+4?").stdout == result.stdout
    options = ("--rounds", 1, "--latent-steps", 3, "--executor", "reference", "--json")
    facts = json.loads(call("run", team, "3+4?", *options).stdout)
    again = system("3+4?", rounds=1, latent_steps=3)
    assert facts["rows"] == [{"question": "3+4?", "prediction": again.text}]
    assert facts["accounting"][0]["latent_steps"] == 3
    assert {turn["round"] for turn in facts["accounting"]} == {1}


def test_run_draws_by_seed(team):
    def draw(seed: int, *more: object) -> str:
        return call("run", team, "x", "--do-sample", "--seed", seed, "--top-k", 50, *more).stdout

    assert draw(1) == draw(1) != draw(2)
    refused = call("run", team, "x", "--top-k", 5, code=2).stderr
    assert "--top-k would have no effect" in words(refused) and "add --do-sample" in words(refused)
    bad = call("run", team, "x", "--do-sample", "--temperature", 0, code=2).stderr
    assert "--temperature is 0.0; give a number above 0" in words(bad)


def test_run_rows(team, rows, tmp_path):
    system = lm.Graph.load(team).compile().load()
    data = read_jsonl(rows).rows
    texts = system.run(data).texts
    data[1]["answer"] = texts[1]
    write_rows(rows, data)
    result = call("run", team, "--data", rows, "--batch-size", 2)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert found == [row | {"prediction": t} for row, t in zip(data, texts, strict=True)]
    matches = sum(lm_match(t, row["answer"]) for row, t in zip(data, texts, strict=True))
    assert f"exact match: {matches / 3:.1%} of 3 rows" in result.stderr
    out = tmp_path / "new" / "out.jsonl"
    facts = json.loads(call("run", team, "--data", rows, "-o", out, "--json").stdout)
    assert (facts["count"], facts["scored"], facts["output"]) == (3, 3, str(out))
    assert facts["exact_match"] == matches / 3
    saved = read_jsonl(out).rows
    assert [{k: v for k, v in row.items() if k in found[0]} for row in saved] == found
    ids = system.run(data).token_ids
    assert [(row["sample"], row["token_ids"]) for row in saved] == list(enumerate(ids))
    assert {row["finish_reason"] for row in saved} <= {"stop", "length"}
    assert call("run", team, "--data", rows, "-o", out).stdout == ""


def lm_match(prediction: str, answer: str) -> bool:
    from latentmas.evaluation import exact_match

    return exact_match(prediction, answer)


def test_run_several_inputs_and_the_text_twin(tmp_path):
    tiny = tiny_backbone("llama", 16)
    built = lm.Graph("pair", inputs=["a", "b"], rounds=2, latent_steps=1)
    built.add_agent("one", tiny, prompt="{{ a }}", max_new_tokens=2)
    built.add_agent("two", tiny, prompt="{{ b }} {{ one }}", max_new_tokens=2)
    built.connect("one", "two")
    path = built.output("two").save(tmp_path / "pair.yaml")
    sample = {"a": "x = y", "b": "z"}
    latent = built.compile().load()(sample).text
    assert call("run", path, "--field", "a=x = y", "--field", "b=z").stdout == latent + "\n"
    assert call("run", path, "z", "--field", "a=x = y").stdout == latent + "\n"
    text_messages = call("run", path, "z", "--field", "a=x = y", "--text")
    assert text_messages.stdout == built.as_text().compile().load()(sample).text + "\n"
    error = words(call("run", path, "z", code=2).stderr)
    assert '--field a="…"' in error and '--field b="…"' in error
    error = call("run", path, "--field", "a=1", "--field", "bb=2", code=2).stderr
    assert "did you mean 'b'?" in words(error)
    assert "none is left for the question" in words(
        call("run", path, "x", "--field", "a=1", "--field", "b=2", code=2).stderr
    )


def test_run_writes_a_report(team, rows, tmp_path):
    plain = call("run", team, "--data", rows)
    page = tmp_path / "pages" / "run.html"
    result = call("run", team, "--data", rows, "--report", page, "--twin", "--max-new-tokens", 4)
    assert result.stdout == plain.stdout
    assert f"wrote {page}" in result.stderr
    assert "twin / run" in page.read_text()
    assert "gold answer" in page.read_text() and "The text twin: 0 of 3 right" in page.read_text()
    assert "Grader: exact match." in page.read_text()
    call("run", team, "3+4?", "--report", page)
    assert "twin / run" not in page.read_text() and "gold answer" not in page.read_text()
    for options in (["--twin"], ["--twin", "--text", "--report", page]):
        assert "--twin requires --report" in words(call("run", team, "x", *options, code=2).stderr)


def test_report_shows_a_training(tmp_path):
    folder = tmp_path / "out"
    assert "holds no metrics.jsonl" in call("report", folder, code=1).stderr
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    assert call("report", folder).stdout.strip() == str(folder / "report.html")
    page, png = tmp_path / "page.html", tmp_path / "png"
    result = call("report", folder, "-o", page, "--png", png)
    assert result.stdout.strip() == str(page) and str(png) in result.stderr
    assert page.read_text() == (folder / "report.html").read_text()
    assert [path.name for path in png.iterdir()] == ["out-01-loss.png"]


def test_run_usage_errors(team, rows):
    assert "'question': give QUESTION" in words(call("run", team, code=2).stderr)
    assert "not both" in words(call("run", team, "x", "--data", rows, code=2).stderr)
    assert "name=value" in words(call("run", team, "--field", "question", code=2).stderr)
    twice = ("--field", "question=1", "--field", "question=2")
    assert "twice" in words(call("run", team, *twice, code=2).stderr)
    call("run", team, "x", "--batch-size", 0, code=2)
    call("run", team, "x", "--max-new-tokens", 0, code=2)


def test_run_bad_input(team, broken, tmp_path):
    assert "cuda:77" in call("run", team, "x", "--device", "cuda:77", code=1).stderr
    assert "unknown executor" in call("run", team, "x", "--executor", "fast", code=1).stderr
    assert "LM113" in call("run", team, "x", "--latent-steps", 0, code=1).stderr
    assert "LM105" in call("run", broken, "x", code=1).stderr
    assert "No such file" in call("run", tmp_path / "no.yaml", "x", code=1).stderr
    assert "LM502" in call("run", tmp_path, "x", code=1).stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"question": "a"}\n{"question": \n', "rows.jsonl:2: not JSON"),
        (b'{"question": "a"}\n\n[1]\n', "rows.jsonl:3: found list, not a JSON object"),
        (b'\n{"question": "a"}\n{"q": 1}\n', "rows.jsonl:3: lacks the field 'question'; it has: q"),
        (b"\n \n", "empty"),
        (b'{"question": "\xff"}', "not UTF-8"),
        (None, "No such file"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(team, tmp_path, content, said):
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert said in call("run", team, "--data", path, code=1).stderr


def test_rows_survive_any_text(tmp_path):
    rows = [{"a": "é中 \u2028 \ud800"}, {"a": "x\ny"}, {"a": None}]
    assert read_jsonl(write_rows(tmp_path / "r.jsonl", rows)).rows == rows
    (tmp_path / "bom.jsonl").write_text('{"a": 1}\r\n', encoding="utf-8-sig")
    assert read_jsonl(tmp_path / "bom.jsonl").rows == [{"a": 1}]
    assert dumps({"a": "é中"}) == '{"a": "é中"}'


def test_json_has_no_nan(capsys):
    emit_json({"a": [float("nan"), 1.5, float("inf")]})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5, None]}


def test_progress_reads_the_event_stream(team, monkeypatch, capsys):
    class Terminal:
        def isatty(self) -> bool:
            return True

        def __getattr__(self, name: str) -> object:
            return getattr(sys.__stderr__, name)

        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    written: list[str] = []
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with run_progress() as watch:
        lm.Graph.load(team).compile().load().run(["a", "b", "c"], batch_size=2, on_event=watch)
    assert "batch 2 round 2 solver decode" in "".join(written)


# --- train ----------------------------------------------------------------------------------


def test_train_inner_then_outer_then_run(team, rows, tmp_path):
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    options = ("--data", rows, "--eval-data", rows, "--batch-size", 2, "--seed", 3)
    done = call("train", "inner", team, *options, "--output-dir", inner, "--steps", 2)
    assert done.stdout == f"{inner / 'team'}\n"
    assert "trained 3 links in 2 steps" in done.stderr and "eval_loss" in done.stderr
    assert f"curves: {inner / 'report.html'}" in done.stderr
    own = ("--steps", 2, "--rounds", 2, "--links", "all", "--learning-rate", 0.01, "--json")
    sets = ("save_strategy=steps", "save_steps=1", "eval_max_new_tokens=2")
    own += tuple(item for text in sets for item in ("--set", text))
    done = call("train", "outer", inner / "team", *options, "--output-dir", outer, *own)
    facts = json.loads(done.stdout)
    assert facts["team"] == str(outer / "team") and facts["steps"] == 2
    assert len(facts["links"]) == 6 and facts["train_loss"] > 0
    assert {"eval_loss", "eval_exact_match"} <= facts["eval"].keys()
    before, after = (lm.System.from_pretrained(f / "team").link_state() for f in (inner, outer))
    assert all(not after[name].equal(tensor) for name, tensor in before.items() if tensor.dim() > 1)
    question = call("run", outer / "team", "3+4?")
    assert question.stdout == lm.System.from_pretrained(outer / "team")("3+4?").text + "\n"
    assert "untrained" not in question.stderr
    assert "--text" in call("run", outer / "team", "x", "--text", code=2).stderr
    resumed = ("--output-dir", outer, "--steps", 3, "--resume", "--links", "all")
    assert "in 3 steps" in call("train", "outer", inner / "team", "--data", rows, *resumed).stderr


def test_train_rollout(team, rows, tmp_path):
    out = tmp_path / "rollout"
    options = ("--data", rows, "--eval-data", rows, "--batch-size", 2, "--output-dir", out)
    own = ("--steps", 2, "--passes", 2, "--links", "inner", "--set", "mix=0.1", "--json")
    facts = json.loads(call("train", "rollout", team, *options, *own).stdout)
    assert facts["steps"] == 2 and {id.split(".")[0] for id in facts["links"]} == {"inner"}
    assert {"eval_loss", "eval_nearest_rollout", "eval_nearest_forced"} <= facts["eval"].keys()
    assert lm.System.from_pretrained(out / "team").history[-1].arguments["passes"] == 2
    wrong = call("train", "rollout", team, *options, "--set", "teacher=words", code=1)
    assert "teacher is 'words'; it takes one of text, soft_token" in wrong.stderr
    assert "--passes" in call("train", "rollout", team, *options, "--passes", 0, code=2).stderr


def test_train_inner_targets(team, tmp_path):
    data = [{"question": "a", "plan": "b", "critic": "c", "reply": "d"}] * 2
    rows = write_rows(tmp_path / "own.jsonl", data)
    options = ("--data", rows, "--output-dir", tmp_path / "out", "--steps", 1)
    fields = ("--target", "planner=plan", "--answer-field", "reply")
    call("train", "inner", team, *options, *fields)
    assert (
        "reply"
        in call("train", "inner", team, *options, "--target", "solver=replly", code=1).stderr
    )
    assert (
        "planer" in call("train", "inner", team, *options, "--target", "planer=plan", code=1).stderr
    )


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--set", "lerning_rate=1"], 2, "did you mean 'learning_rate'?"),
        (["--set", "learning_rate"], 2, "name=value"),
        (["--set", "zzz=1"], 2, "OuterConfig"),
        (["--set", "seed=1", "--seed", "2"], 2, "its own flag sets it already"),
        (["--set", "seed=[1"], 2, "not a YAML value"),
        (["--set", "save_strategy=sometimes"], 1, "invalid training arguments"),
        (["--links", "outer.nobody"], 1, "unknown link"),
        (["--rounds", "1", "--links", "outer"], 1, "LM401"),
        (["--resume"], 1, "has no checkpoint"),
        (["--answer-field", "reply"], 1, "reply"),
        (["--device", "cuda:77"], 1, "cuda:77"),
        (["--eval-data", "no.jsonl"], 1, "no.jsonl"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_train_bad_input(team, rows, tmp_path, options, code, said):
    common = ("--data", rows, "--output-dir", tmp_path / "out", "--steps", 1)
    result = call("train", "outer", team, *common, *options, code=code)
    assert said in words(result.stderr)
    assert not (tmp_path / "out" / "team").exists()


def test_train_looks_first_whether_it_can_save(team, rows, tmp_path):
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "mine.txt").write_text("mine")
    common = ("--data", rows, "--output-dir", tmp_path, "--steps", 1)
    result = call("train", "outer", team, *common, code=1)
    assert "something other than a saved team" in result.stderr and "step" not in result.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("1e-4", 1e-4),
            ("3", 3),
            ("true", True),
            ("no", "no"),
            ("off", "off"),
            ("cosine", "cosine"),
        ),
        *(("null", None), ("[1, 2]", [1, 2]), ("-1.5e3", -1500.0), ("2024-run", "2024-run")),
    ],
)
def test_values_of_set(text, value):
    assert parse_value("key", text) == value


# --- plugins, demo, env ---------------------------------------------------------------------


def test_a_plugin_registers_for_the_command(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import latentmas as lm\n"
        '@lm.templates.register("cli_lonely")\n'
        "def cli_lonely(*, hermit: lm.Backbone):\n"
        '    """One agent on its own."""\n'
        '    graph = lm.Graph("lonely", inputs=["question"], rounds=1)\n'
        '    graph.add_agent("hermit", hermit, prompt="{{ question }}")\n'
        '    return graph.output("hermit")\n'
    )
    try:
        assert "cli_lonely" not in call("templates").stdout
        assert "One agent on its own." in call("--plugin", path, "templates").stdout
        again = ("--plugin", path, "new", "alone", "--template", "cli_lonely", "--output", tmp_path)
        call(*again)
        assert GraphSpec.load(tmp_path / "alone.yaml").agents[0].name == "hermit"
    finally:
        lm.templates.templates._entries.pop("cli_lonely", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "the file does not exist"),
        ("x = 1\nx.nope\n", "fails in line 2: AttributeError"),
        ("def (", "SyntaxError"),
        ("import no_such_module_at_all", "no_such_module_at_all"),
    ],
)
def test_bad_plugins(tmp_path, text, said):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    error = call("--plugin", path, "templates", code=1).stderr
    assert str(path) in error and said in error


def test_demo_forwards(monkeypatch, tmp_path):
    seen = {}

    def run_demo(output: Path, seed: int, quick: bool, json: bool) -> dict[str, object]:
        seen.update(output=output, seed=seed, quick=quick, json=json)
        return {"accuracy": 1.0}

    fake = types.ModuleType("latentmas.demo.run")
    fake.run_demo = run_demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "latentmas.demo.run", fake)
    result = call("demo", "--output", tmp_path, "--seed", 7, "--quick", "--json")
    assert json.loads(result.stdout) == {"accuracy": 1.0}
    assert seen == {"output": tmp_path, "seed": 7, "quick": True, "json": True}
    assert call("demo", "--output", tmp_path).stdout == ""


def test_demo_pretrain_forwards(monkeypatch, tmp_path):
    from latentmas.demo import pretrain

    def fake(output_dir: Path, *, seed: int, progress) -> dict[str, float]:
        progress("planner", 100, 0.5)
        return {
            "planner": 0.25,
            "seed": float(seed),
            "ok": float(output_dir == tmp_path / "backbones"),
        }

    monkeypatch.setattr(pretrain, "pretrain", fake)
    result = call("demo", "--pretrain", "--output", tmp_path, "--seed", 2, "--json")
    assert "planner: step 100, loss 0.5" in result.stderr
    assert json.loads(result.stdout)["accuracy"] == {"planner": 0.25, "seed": 2.0, "ok": 1.0}


def test_env():
    facts = json.loads(call("env", "--json").stdout)
    assert facts["latentmas"] == lm.__version__ and "cpu" in facts["devices"]
    assert facts["packages"]["torch"] and facts["threads"] >= 1
    text = call("env").stdout
    assert all(name in text for name in ("torch", "transformers", "python", "platform", "devices"))
