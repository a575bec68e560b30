"""Runs that can be repeated: manifests, `rerun`, the first difference."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.cli.support.rows import write_rows
from latentmas.evaluation import evaluate
from latentmas.io import RunManifest, RunRecorder
from tests.teams import sequential, tiny

ROWS = [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(3)]
DRAWN = {"do_sample": True, "num_return_sequences": 2, "seed": 5, "temperature": 2.0}


@pytest.fixture(scope="module")
def system() -> lm.System:
    return sequential(rounds=2).compile().load(seed=3)


@pytest.fixture
def team(system: lm.System, tmp_path: Path) -> Path:
    return system.save_pretrained(tmp_path / "team")


def read(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text())
    assert isinstance(data, dict)
    return data


def edit(path: Path, change: Any) -> Path:
    data = read(path)
    change(data)
    path.write_text(json.dumps(data))
    return path


def test_a_manifest_holds_what_the_run_depends_on_and_gave(
    system: lm.System, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "run.json"
    result = system.run(ROWS, manifest=path, batch_size=2, rounds=1, **DRAWN)
    told = read(path)
    assert told["format"] == "latentmas-run" and told["team"]["digest"] == system.plan.digest
    assert set(told["team"]["links"]) == set(system.link_ids())
    assert (told["team"]["source"], told["team"]["seed"]) == (None, 3)
    assert told["data"]["rows"] == 3 and told["data"]["samples"] == ROWS
    assert told["arguments"]["rounds"] == 1 and told["arguments"]["seed"] == 5
    assert told["arguments"]["executor"] == "cached"
    assert [answer["tokens"] for answer in told["answers"]] == result.sequence_ids
    assert told["versions"]["torch"] == torch.__version__
    assert told["hardware"]["threads"] == torch.get_num_threads()
    assert told["began"].endswith("+00:00")
    assert RunManifest.load(path).digest == told["digest"]
    assert not [
        text
        for row in result.sequences
        for text in row
        if len(text) > 4 and text in path.read_text()
    ]


def test_a_graphs_run_is_repeated_from_its_manifest_alone(
    system: lm.System, tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    system.run(ROWS, manifest=path, **DRAWN)
    found = lm.rerun(path)
    assert found.equal and found.samples == 3 and found.environment == {}
    assert str(found) == f"equal: 3 samples, {found.tokens} tokens"
    assert found.tokens == sum(len(ids) for a in read(path)["answers"] for ids in a["tokens"])


@pytest.mark.parametrize("options", [{"position_mode": "column"}, {"retry": "math"}, {"stop": "a"}])
def test_every_argument_is_repeated(
    options: dict[str, Any], system: lm.System, tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    result = system.run(ROWS, manifest=path, **options)
    assert lm.rerun(path, team=system, save=tmp_path / "again.json").equal
    assert result.sequence_ids == [a["tokens"] for a in read(tmp_path / "again.json")["answers"]]
    assert read(path)["digest"] == read(tmp_path / "again.json")["digest"]


def test_a_saved_team_is_found_again_or_told_where_it_is_now(
    system: lm.System, team: Path, tmp_path: Path
) -> None:
    loaded = lm.System.from_pretrained(team, reuse=system)
    path = tmp_path / "run.json"
    loaded.run(ROWS, manifest=path)
    assert read(path)["team"]["source"] == str(team)
    assert lm.rerun(path).equal
    team.rename(tmp_path / "moved")
    with pytest.raises(lm.WeightsError, match="LM502"):
        lm.rerun(path)
    assert lm.rerun(path, team=tmp_path / "moved").equal
    edit(path, lambda told: told["team"].update(source="moved"))
    assert lm.rerun(path).equal, "beside the manifest"


def test_a_type_and_a_text_function_are_those_of_the_run(tmp_path: Path) -> None:
    graph = lm.Graph("solo", inputs=["question"], rounds=1, latent_steps=2)
    graph.add_agent(
        "one", tiny("llama", 16), prompt="{{ question }} {{ facts }}", max_new_tokens=40
    )
    graph.add_text_source("facts", lambda sample: sample["question"])
    graph.connect("facts", "one")
    system = graph.output("one").compile().load(dtype="bfloat16")
    path = tmp_path / "run.json"
    system.run(ROWS, manifest=path, do_sample=True)
    assert set(read(path)["team"]["dtypes"].values()) == {"bfloat16"}
    with pytest.raises(lm.LatentMASError, match="'facts' has no function"):
        lm.rerun(path)
    again = {"facts": lambda sample: sample["question"]}
    assert lm.rerun(path, text_functions=again).equal
    other = lm.rerun(path, text_functions={"facts": lambda sample: "something else entirely"})
    assert not other.equal


# --- differences ------------------------------------------------------------------------------


def other_token(told: dict[str, Any]) -> None:
    told["answers"][1]["tokens"][0][2] += 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_token, r"sample 1, token 2: \d+ then, \d+ now"),
        (
            lambda told: told["answers"][2]["tokens"][0].pop(),
            r"sample 2: 4 tokens then, 5 now, equal up to there",
        ),
        (
            lambda told: told["answers"][0].update(texts=["0" * 64]),
            r"sample 0: the same tokens, but different text",
        ),
    ],
)
def test_the_first_difference_is_named(
    change: Any, words: str, system: lm.System, tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    system.run(ROWS, manifest=path)
    found = lm.rerun(edit(path, change), team=system)
    assert not found.equal
    assert re.fullmatch(f"different: {words}", str(found).splitlines()[0]), str(found)


def test_several_answers_are_told_apart(system: lm.System, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    system.run(ROWS, manifest=path, **DRAWN)
    edit(path, lambda told: told["answers"][0]["tokens"][1].__setitem__(0, 1))
    assert "sample 0, answer 1, token 0: 1 then" in lm.rerun(path, team=system).difference


def test_other_versions_and_hardware_are_told(system: lm.System, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    system.run(ROWS, manifest=path)
    edit(
        path, lambda told: (told["versions"].update(torch="1.0"), told["hardware"].update(cores=1))
    )
    found = lm.rerun(path, team=system)
    assert found.equal and set(found.environment) == {"torch", "cores"}
    assert f"torch: 1.0 then, {torch.__version__} now" in str(found)


def test_another_team_is_refused_with_what_is_other(system: lm.System, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    system.run(ROWS, manifest=path)
    deeper = lm.System.load(system.plan.replace(rounds=3), reuse=system, seed=3)
    with pytest.raises(lm.WeightsError, match="LM501") as caught:
        lm.rerun(path, team=deeper)
    assert "rounds: 2 -> 3" in str(caught.value)
    trained = lm.System.load(system.plan, reuse=system, seed=3)
    with torch.no_grad():
        trained.link("inner.critic").proj1.bias.add_(1e-6)
    with pytest.raises(lm.WeightsError, match=r"weights of inner\.critic differ"):
        lm.rerun(path, team=trained)
    trained.run(ROWS, manifest=path)
    with pytest.raises(lm.WeightsError, match="save it and pass it as team"):
        lm.rerun(path)


def test_other_data_are_refused(system: lm.System, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", ROWS)
    path = tmp_path / "run.json"
    system.run(ROWS, manifest=RunRecorder(path, data=data))
    told = read(path)["data"]
    assert told["path"] == str(data) and told["samples"] is None
    assert lm.rerun(path, team=system).equal
    moved = data.rename(tmp_path / "moved.jsonl")
    with pytest.raises(lm.DataError, match="LM512 the data of the run cannot be read"):
        lm.rerun(path, team=system)
    assert lm.rerun(path, team=system, data=moved).equal
    write_rows(moved, [*ROWS[:2], {"question": "?", "answer": "!"}])
    with pytest.raises(lm.DataError, match="LM512 the data have changed: 3 rows"):
        lm.rerun(path, team=system, data=moved)


# --- what cannot be recorded, and what is no manifest -----------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"edit_message": lambda name, message_BKD: message_BKD}, "edit_message"),
        ({"retry": lm.runtime.Retry(lambda text: True, "", 1)}, "a Retry object"),
        ({"samples": [{"question": object()}]}, "cannot be stored"),
        ({"samples": [{"question": float("nan")}]}, "cannot be stored"),
    ],
    ids=["edit", "retry", "object", "nan"],
)
def test_a_run_that_cannot_be_repeated_is_refused_before_it_runs(
    options: dict[str, Any], words: str, system: lm.System, tmp_path: Path
) -> None:
    samples = options.pop("samples", ROWS)
    events: list[Any] = []
    with pytest.raises(lm.LatentMASError, match=f"LM512 .*{words}"):
        system.run(samples, manifest=tmp_path / "x.json", on_event=events.append, **options)
    assert events == [] and not (tmp_path / "x.json").exists()


def test_a_tap_may_read_but_not_edit_what_is_recorded(system: lm.System, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with system.tap("planner->critic"):
        system.run(ROWS, manifest=path)
    assert lm.rerun(path, team=system).equal
    with (
        system.tap("planner->critic", lambda name, message_BKD: message_BKD * 2),
        pytest.raises(lm.LatentMASError, match=r"LM512 .* a tap that edits"),
    ):
        system.run(ROWS, manifest=path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"format": "latentmas"}', "[" * 9999, '"x"'],
    ids=range(8),
)
def test_a_file_that_is_no_manifest_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(lm.DataError, match="LM512"):
        lm.rerun(path)
    with pytest.raises(lm.DataError, match="LM512"):
        lm.rerun(tmp_path / "nowhere.json")


def test_a_newer_manifest_warns(
    system: lm.System, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.json"
    system.run(ROWS, manifest=path)
    edit(path, lambda told: (told.update(version=99, mood=1), told["arguments"].update(top_n=3)))
    assert lm.rerun(path, team=system).equal
    assert "mood" in caplog.text and "arguments.top_n" in caplog.text


def test_a_manifest_that_asks_for_remote_code_is_refused(system: lm.System, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    system.run(ROWS, manifest=path)

    def ask(told: dict[str, Any]) -> None:
        next(iter(told["team"]["graph"]["backbones"].values())).update(trust_remote_code=True)

    with pytest.raises(lm.WeightsError, match=r"LM504 .* asks to run"):
        lm.rerun(edit(path, ask))


# --- on the command line ----------------------------------------------------------------------


def call(*words: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done


def test_the_command_line_records_scores_and_repeats(team: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", ROWS)
    path = tmp_path / "run.json"
    run = ("run", team, "--data", data, "-o", tmp_path / "out.jsonl", "--manifest", path)
    call(*run, "--max-new-tokens", 3, "--json")
    told = read(path)
    assert told["data"]["path"] == str(data) and told["team"]["source"] == str(team)
    assert told["scores"]["scored"] == 3 and told["scores"]["interval"][0] == 0.0
    assert told["arguments"]["max_new_tokens"] == 3
    done = call("rerun", path)
    assert done.stdout.startswith("equal: 3 samples, ")
    edit(path, other_token)
    done = call("rerun", path, code=1)
    assert done.stdout.startswith("different: sample 1, token 2: ")
    done = call("rerun", path, "--json", "--save", tmp_path / "two.json", code=1)
    assert json.loads(done.stdout)["difference"].startswith("sample 1, token 2")
    assert read(tmp_path / "two.json")["data"]["path"] == str(data)


def test_an_evaluation_is_recorded_with_its_score(system: lm.System, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    twin = lm.System.load(system.plan, reuse=system, seed=9)
    found = evaluate(system, ROWS, compare_with={"twin": twin}, manifest=path, max_new_tokens=3)
    assert read(path)["scores"] == {
        "grader": "exact",
        "rows": 3,
        "score": found.score,
        "interval": list(found.interval),
    }
    assert lm.rerun(path, team=system).equal, "of the team, not of its twin"


def test_the_command_line_records_an_evaluation(team: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", ROWS)
    path = tmp_path / "run.json"
    run = ("eval", team, "--data", data, "--grader", "math", "--manifest", path)
    call(*run, "--max-new-tokens", 3)
    assert read(path)["data"]["path"] == str(data)
    assert read(path)["scores"]["grader"] == "math"
    call("rerun", path)


def test_the_command_line_records_a_question(team: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    call("run", team, "What is 3 + 4?", "--manifest", path, "--max-new-tokens", 2)
    assert read(path)["data"]["samples"] == [{"question": "What is 3 + 4?"}]
    assert read(path)["scores"] == {}
    call("rerun", path, "--team", team, "--device", "cpu")
    call("rerun", tmp_path / "nowhere.json", code=1)


def test_a_preset_graph_file_is_repeated_without_the_file(tmp_path: Path) -> None:
    graph = sequential(rounds=1).save(tmp_path / "team.yaml")
    path = tmp_path / "run.json"
    call("run", graph, "Why?", "--manifest", path, "--seed", 4, "--do-sample")
    graph.unlink()
    call("rerun", path)
