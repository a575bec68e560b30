"""Secrets fed through every path: none may appear in what is written, shown or logged."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import latentmas as lm
from latentmas import redact
from latentmas.cli.app import app
from latentmas.errors import GraphError
from latentmas.interop import load_release
from latentmas.io import RunRecorder, push_folder
from latentmas.io._hub import find_team
from latentmas.runtime import TrainingRecord
from latentmas.spec import GraphSpec
from latentmas.training.data import read_rows
from tests.teams import tiny

VARIABLE = "NotAToken-but-a-secret-1f2e"
GIVEN = "GivenAsAnArgument-77aa"
FORM = "hf_" + "FakeTokenOfNobody0123456789ABCDEFG"[:34]
USER, WORD = "fakeuser", "fakepassw0rd"
URL = f"https://{USER}:{WORD}@hub.example/org/data.jsonl?access_token=qu3ryS3cret&x=1"
ALL = (VARIABLE, GIVEN, FORM, USER, WORD, "qu3ryS3cret")


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: Any) -> Any:
    """Fake secrets around; afterwards, look at every file that the test wrote, and at the log."""
    monkeypatch.setenv("HF_TOKEN", VARIABLE)
    monkeypatch.setenv("MY_API_KEY", "short")
    monkeypatch.setattr(redact, "_given", set())
    with caplog.at_level(logging.DEBUG, "latentmas"):
        yield
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in written:
        assert_none(path.read_bytes().decode(errors="replace"), path.name)
    assert_none(caplog.text, "the log")


def assert_none(text: str, where: str = "") -> None:
    for secret in ALL:
        assert secret not in text, f"{where}: {text}"


@pytest.fixture(scope="module")
def system() -> lm.System:
    small = tiny("llama", 16)
    graph = lm.templates.distillation(
        expert=small, learner=small, rounds=2, latent_steps=2, link="recursive", inner="recursive"
    )
    return graph.compile().load()


def said(do: Callable[[], Any], *kinds: type[Exception]) -> str:
    """What an error says, alone and with all that printing it would show of this package."""
    with pytest.raises(kinds or lm.LatentMASError) as caught:
        do()
    text = f"{caught.value} {caught.value!r} {caught.value.args}"
    assert_none(text, "an error")
    return text


# --- what is a secret -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"Bearer {FORM}",
        f"value {VARIABLE} of a variable",
        f"cannot open {URL!r}",
        str(Path(URL)),
        f"s3://{USER}:{WORD}@bucket/x",
        f"sk-{FORM[3:]}",
        "https://host/x?X-Amz-Signature=qu3ryS3cret",
    ],
)
def test_secrets_go(text: str) -> None:
    assert_none(redact.redact(text))
    assert redact.redact(text) != text
    assert redact.redact(redact.redact(text)) == redact.redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "hf_hub_download and hf_transfer",
        "mail me@host.example, git@github.com:org/x",
        "C:/Users/me@home/x",
        "https://hub.example/a/b?revision=main",
        "short",
        "org/model-7B",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact.redact(text) == text and redact.secrets_in(text) == []


def test_a_token_that_was_given_is_remembered() -> None:
    assert GIVEN in redact.redact(GIVEN)
    redact.hide(GIVEN)
    redact.hide(None)
    redact.hide("tiny")
    assert redact.redact(f"x {GIVEN} tiny") == "x … tiny"
    assert redact.secrets_in(VARIABLE) == ["HF_TOKEN"]
    assert redact.secrets_in(FORM) == ["a token by its form"]


def test_logs_hold_none(caplog: pytest.LogCaptureFixture) -> None:
    logger = redact.get_logger("latentmas.test")
    assert redact.get_logger("latentmas.test").filters == logger.filters
    logger.warning("opening %s with %s", URL, VARIABLE)
    assert "opening https://…@hub.example" in caplog.text


def test_every_logger_of_the_package_hides_secrets() -> None:
    package = Path(lm.__file__).parent
    for path in package.rglob("*.py"):
        if path.name != "redact.py":
            assert "getLogger" not in path.read_text(), f"{path}: use redact.get_logger"


# --- declarations and files -------------------------------------------------------------------


@pytest.mark.parametrize("source", [URL, f"https://{FORM}@hub.example/a", f"org/{FORM}"])
def test_a_source_with_a_secret_is_refused(source: str, tmp_path: Path) -> None:
    assert "holds a secret" in said(lambda: lm.Backbone(source), GraphError)
    said(lambda: lm.Backbone("a/b", revision=source), GraphError)
    data = {"backbones": {"x": {"source": source}}, "agents": []}
    assert "holds a secret" in said(lambda: GraphSpec.parse(data))
    assert "holds a secret" in said(
        lambda: lm.Graph("g", backbones={}).add_agent("a", lm.Backbone(source), prompt="x"),
        GraphError,
    )
    said(lambda: lm.Plan.from_json(json.dumps({"graph": data})))


def test_errors_of_files_hold_none(tmp_path: Path) -> None:
    for do in (
        lambda: read_rows(URL),
        lambda: lm.prompt_file(URL),
        lambda: lm.GraphSpec.load(URL),
        lambda: lm.Plan.open(URL),
        lambda: lm.System.from_pretrained(URL),
        lambda: lm.rerun(URL),
        lambda: load_release("sequential_light", URL),
        lambda: lm.templates.get(URL),
        lambda: find_team(f"org/{VARIABLE}"),
        lambda: lm.templates.sequential(
            prompts=URL, **dict.fromkeys(("planner", "critic", "solver"), lm.Backbone("a/b"))
        ),
    ):
        said(do)


def test_problems_hold_none() -> None:
    problem = lm.Problem("LM201", f"backbone {URL}", f"no {VARIABLE}", f"fix {FORM}")
    assert_none(f"{problem} {problem.to_dict()} {problem!r}")
    assert_none(str(lm.UnknownNameError("tool", URL, [VARIABLE])))


# --- what is saved ----------------------------------------------------------------------------


def test_a_saved_team_holds_none(system: lm.System, tmp_path: Path) -> None:
    team = lm.System.load(system.plan, reuse=system)
    team.history = [
        TrainingRecord(
            "outer", {"x": FORM, "y": [URL]}, [{"z": VARIABLE}], {"hardware": {"p": URL}}
        )
    ]
    scores = [lm.Score("exact_match", 0.5, n=2, data=URL, settings={"token": VARIABLE})]
    folder = team.save_pretrained(tmp_path / "team", scores=scores)
    assert_none(str(lm.System.from_pretrained(folder, reuse=system).history))
    said(lambda: push_folder(folder, "me/team", token=GIVEN))
    assert redact.redact(GIVEN) == "…"


def test_training_arguments_and_records_hold_none(system: lm.System, tmp_path: Path) -> None:
    team = lm.System.load(system.plan, reuse=system)
    rows = [{"question": "1 + 1?", "answer": "2"}] * 4
    config = lm.InnerConfig(
        str(tmp_path / "out"),
        max_steps=1,
        use_cpu=True,
        hub_token=FORM,
        run_name=URL,
        save_strategy="steps",
        save_steps=1,
    )
    lm.InnerTrainer(team, config, train_dataset=rows).train()
    folder = team.save_pretrained(tmp_path / "team")
    arguments = json.loads((folder / "training/1-inner/arguments.json").read_text())
    assert arguments["learning_rate"] == 5e-4
    assert not {"hub_token", "push_to_hub_token", "output_dir", "run_name"} & set(arguments)


def with_prompt(prompt: str) -> lm.System:
    graph = lm.Graph("solo", inputs=["question"], rounds=1)
    graph.add_agent("one", tiny("llama", 16), prompt=prompt + " {{ question }}")
    return graph.output("one").compile().load()


@pytest.mark.parametrize("secret", [VARIABLE, FORM])
def test_a_prompt_with_a_secret_is_not_saved(secret: str, tmp_path: Path) -> None:
    system = with_prompt(f"Use {secret}.")
    assert "LM513" in said(lambda: system.save_pretrained(tmp_path / "team"))
    assert "LM513" in said(lambda: system.push_to_hub("me/team"))
    assert "LM513" in said(lambda: system.run(["x"], manifest=tmp_path / "run.json"))
    assert "LM513" in said(lambda: system.save_links(tmp_path / "x.safetensors"))
    assert not list(tmp_path.iterdir())


def test_an_example_address_in_a_prompt_is_no_secret(tmp_path: Path) -> None:
    system = with_prompt("Connect to postgres://me:pw@host/db.")
    system.save_pretrained(tmp_path / "team")


# --- runs -------------------------------------------------------------------------------------


def test_a_runs_manifest_holds_none(system: lm.System, tmp_path: Path) -> None:
    system.run(["x"], manifest=RunRecorder(tmp_path / "run.json", data=URL), max_new_tokens=2)
    assert "hub.example" in (tmp_path / "run.json").read_text()
    said(lambda: lm.rerun(tmp_path / "run.json", team=system))
    for sample in (f"Is {VARIABLE} good?", FORM):
        assert "LM513" in said(lambda s=sample: system.run([s], manifest=tmp_path / "x.json"))
    assert not (tmp_path / "x.json").exists()


# --- the command line -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["run", "TEAM", "--data", URL],
        ["run", URL, "x"],
        ["run", "TEAM", "x", "--retry", VARIABLE],
        ["run", "TEAM", "--field", f"{FORM}=x", "y"],
        ["run", "TEAM", "x", "--rounds", VARIABLE],
        ["--debug", "run", "TEAM", "--data", URL],
        ["check", URL],
        ["check", URL, "--json"],
        ["plan", URL, "--json"],
        ["train", "inner", "TEAM", "--data", URL, "--output-dir", "OUT"],
        [
            "train",
            "inner",
            "TEAM",
            "--data",
            "ROWS",
            "--output-dir",
            "OUT",
            "--set",
            f"seed={FORM}",
        ],
        ["push", "TEAM", f"me/{FORM}"],
        ["push", URL, "me/team"],
        ["rerun", URL],
        ["rerun", "RUN", "--team", URL, "--json"],
        ["rerun", "RUN", "--data", URL],
        ["new", "mine", "--backbone", URL, "--output", "OUT"],
        ["import-release", "sequential_light", "OUT", "--source", URL],
    ],
    ids=lambda words: " ".join(words[:2])[:30],
)
def test_the_command_line_shows_none(
    words: list[str], system: lm.System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    team = system.save_pretrained(tmp_path / "team")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "x", "answer": "y"}\n')
    system.run(["x"], manifest=tmp_path / "run.json", max_new_tokens=1)
    places = {"TEAM": team, "ROWS": rows, "OUT": tmp_path / "out", "RUN": tmp_path / "run.json"}
    done = CliRunner().invoke(app, [str(places.get(word, word)) for word in words])
    assert_none(done.output, " ".join(words))
    assert done.exit_code != 0, done.output
