"""The report on the paper's claims: verdicts by a rule, sections that resume, one page."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from markupsafe import escape
from safetensors.torch import load_file
from typer.testing import CliRunner

from latentmas.backbones import fast_dtype
from latentmas.cli.app import app
from latentmas.errors import DataError, LatentMASError, UnknownNameError
from latentmas.studies.paper import (
    PaperInterrupted,
    PaperReport,
    Preset,
    Section,
    Skipped,
    Work,
    judge,
    judge_range,
    open_preset,
    plan_paper,
    run_paper,
    sections,
)
from latentmas.studies.paper import session as paper_session
from latentmas.studies.paper._base import ORDER
from latentmas.studies.paper.sections import rounds as rounds_section


@pytest.mark.parametrize(
    ("interval", "direction", "control", "outcome"),
    [
        ((0.01, 0.2), 1, False, "reproduced"),
        ((-0.2, -0.01), 1, False, "not reproduced"),
        ((-0.01, 0.2), 1, False, "no difference found"),
        ((0.0, 0.2), 1, False, "no difference found"),
        ((-0.2, 0.0), 1, False, "no difference found"),
        ((-0.2, -0.01), -1, False, "reproduced"),
        ((0.01, 0.2), -1, False, "not reproduced"),
        ((0.01, 0.2), 1, True, "holds"),
        ((-0.2, -0.01), 1, True, "does not hold"),
        (None, 1, False, "not measured"),
    ],
)
def test_a_verdict_follows_from_the_interval(
    interval: Any, direction: int, control: bool, outcome: str
):
    mean = None if interval is None else sum(interval) / 2
    found = judge("More is better.", mean, interval, direction=direction, control=control)
    assert found.outcome == outcome
    if interval is not None:
        low, high = (f"{100 * end:+.1f}" for end in interval)
        assert f"(95 % interval {low} to {high})" in found.evidence


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.5, 2.0, "reproduced"),
        (0.4, 2.0, "undecided"),
        (2.1, 3.0, "not reproduced"),
        (0.1, 0.4, "not reproduced"),
        (None, None, "not measured"),
    ],
)
def test_a_ratio_is_judged_by_its_whole_range(low: Any, high: Any, outcome: str):
    assert judge_range("It is stable.", low, high, (0.5, 2.0)).outcome == outcome


GSM8K = {
    "test": [{"question": f"What is {n} + 1?", "answer": f"Add.\n#### {n + 1}"} for n in range(4)],
    "train": [{"question": f"What is {n} + 2?", "answer": f"Add.\n#### {n + 2}"} for n in range(4)],
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and with a report that tests add sections to."""
    folder = tmp_path_factory.mktemp("paper")
    for split, rows in GSM8K.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines)
    return folder


def run(shared: Path, name: str) -> tuple[dict[str, Any], str]:
    """What `paper.json` and the page say of a section of the report."""
    data = {"gsm8k": shared / "test.jsonl", "gsm8k-train": shared / "train.jsonl"}
    out = shared / "out"
    report = run_paper("tiny", out, only=[name], data=data, progress=False)
    assert name not in {**report.failed, **report.skipped}
    section = json.loads((out / "paper.json").read_text())["sections"][name]
    return section, (out / "index.html").read_text()


KNOWN = {"reproduced", "not reproduced", "no difference found", "undecided", "not measured"}
KNOWN |= {"holds", "does not hold"}


@pytest.mark.parametrize("name", ORDER)
def test_a_section_is_judged_and_shown(name: str, shared: Path):
    section, page = run(shared, name)
    outcome = section["outcome"]
    assert (section["state"], outcome["n"], outcome["seeds"]) == ("done", 4, 1)
    assert outcome["tables"] and outcome["verdicts"]
    for verdict in outcome["verdicts"]:
        assert verdict["outcome"] in KNOWN
        assert escape(verdict["claim"]) in page and escape(verdict["evidence"]) in page
    for caption in outcome["tables"]:
        assert f"<caption>{escape(caption)}</caption>" in page
    assert page.count("<svg") >= len(outcome["plots"])
    if name in ("relay", "gsm8k"):
        [table] = outcome["tables"].values()
        weights = {row[0]: int(row[1].replace(",", "")) for row in table["rows"]}
        assert 0.9 < weights["trained team"] / weights["LoRA"] < 1.1
        assert weights["text twin"] == weights["single agent"] == 0


def contents(folder: Path) -> dict[str, Any]:
    """What a report says of rounds, and what its trained teams and their answers are."""
    told = json.loads((folder / "paper.json").read_text())
    found: dict[str, Any] = {"outcome": told["sections"]["rounds"]["outcome"]}
    cells = folder / "cells" / "rounds"
    for path in sorted(cells.rglob("rows*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[str(path.relative_to(cells))] = [row["prediction"] for row in rows]
    for path in sorted(cells.rglob("training/team/links*.safetensors")):
        weights = load_file(path)
        found[path.parts[-4]] = {name: weight.tolist() for name, weight in weights.items()}
    return found


def test_an_interrupted_report_continues_to_the_same_result(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rounds_section, "asking_trained", interrupt)
        with pytest.raises(PaperInterrupted, match=f"sections: rounds.*kept in '{tmp_path}'"):
            run_paper("tiny", tmp_path, only=["rounds"], progress=False)
    page = (tmp_path / "index.html").read_text()
    assert "not run yet" in page and "0 of 7 sections done" in page
    [section] = plan_paper("tiny", tmp_path, only=["rounds"])
    assert (section.state, section.seeds) == ("waiting", 1)
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.glob("cells/rounds/train*/cell.json")}
    assert len(kept) == 2
    resumed = run_paper("tiny", tmp_path, only=["rounds"], progress=False)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    run(shared, "rounds")
    assert contents(tmp_path) == contents(shared / "out")
    assert len(contents(tmp_path)) == 1 + 3 * 2 + 2
    assert len(json.loads((tmp_path / "paper.json").read_text())["sessions"]) == 2
    again = run_paper("tiny", tmp_path, only=["rounds"], progress=False)
    assert again.outcomes == resumed.outcomes and again.seconds == resumed.seconds


class Quick(Section):
    """A section of a test."""

    title, claim, task = "Quick", "It is quick.", "Nothing is run."
    wrong: Exception | None = None

    @staticmethod
    def run(work: Work) -> Any:
        from latentmas.studies.paper import Outcome

        if Quick.wrong is not None:
            raise Quick.wrong
        return Outcome([judge("It is quick.", 0.1, (0.05, 0.15), paper="fast")], {}, 4, work.seeds)


def quick_preset(**more: Any) -> Preset:
    sizes = {**open_preset("tiny").sections, "quick": {"seconds": 1.0}}
    plain = open_preset("tiny").model_dump() | {"sections": sizes} | more
    return Preset.model_validate(plain)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> type[Quick]:
    """Quick as one more section."""
    monkeypatch.setitem(sections._entries, "quick", Quick)
    monkeypatch.setattr(Quick, "wrong", None)
    return Quick


def test_a_section_that_fails_stops_no_other_and_runs_again(
    tmp_path: Path, quick: type[Quick], capsys: pytest.CaptureFixture[str]
):
    quick.wrong = ValueError("no luck")
    report = run_paper(quick_preset(), tmp_path, only=["quick", "gsm8k"])
    assert report.failed == {"quick": "ValueError: no luck"}
    assert "give its files with --data gsm8k=" in report.skipped["gsm8k"]
    page = (tmp_path / "index.html").read_text()
    assert "no luck" in page and "Traceback" in page and "--data gsm8k=" in page
    assert "numbers and verdicts mean nothing" in page
    assert "[1/2] gsm8k: GSM8K (about 11 s left for 2 sections)" in capsys.readouterr().err
    quick.wrong = None
    report = run_paper(quick_preset(), tmp_path, only=["quick"], progress=False)
    assert not report.failed
    assert str(report).startswith("quick: reproduced: It is quick.")
    table = (tmp_path / "verdicts.md").read_text()
    shown = "+10.0 points (95 % interval +5.0 to +15.0); n = 4, 1 seed"
    assert f"| quick | It is quick. | fast | {shown} | reproduced |" in table
    assert "| gsm8k | | | | skipped |" in table
    page = (tmp_path / "index.html").read_text()
    assert "Traceback" not in page and "✓ reproduced" in page
    assert re.search(r"<code>latentmas paper --preset tiny --only quick -o \S+</code>", page)
    assert not re.search(r"(src|href)=.(?!#)", page)


def test_a_killed_session_ends_with_the_last_file_that_it_wrote(tmp_path: Path, quick: type[Quick]):
    run_paper(quick_preset(), tmp_path, only=["quick"], progress=False)
    path = tmp_path / "paper.json"
    told = json.loads(path.read_text())
    start = "2020-01-01T00:00:00Z"
    told["sessions"][0] |= {"start": start, "end": start, "finished": False}
    section = told["sections"]["quick"]
    del section["outcome"]
    began = time.time() - 1000
    section |= {"state": "running", "since": began, "session": told["sessions"][0]["key"]}
    path.write_text(json.dumps(told))
    cell = tmp_path / "cells" / "quick" / "rows.jsonl"
    cell.parent.mkdir(parents=True)
    cell.write_text("")
    os.utime(cell, (began + 100, began + 100))
    quick.wrong = Skipped("not now")
    report = run_paper(quick_preset(), tmp_path, only=["quick"], progress=False)
    assert report.skipped == {"quick": "not now"}
    told = json.loads(path.read_text())
    first, second = told["sessions"]
    assert first["end"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began + 100))
    assert first["seconds"] > 1e6 and not first["finished"]
    assert second["finished"] and second["seconds"] < 90
    assert 100 <= told["sections"]["quick"]["seconds"] < 190


class Other(Quick):
    """A second section of a test."""


class User(Quick):
    """A section that uses the teams of the first one."""

    uses = ("quick",)


@pytest.fixture
def together(quick: type[Quick], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs sections in two threads, whose locks exclude each other as those of processes do."""
    monkeypatch.setitem(sections._entries, "other", Other)
    monkeypatch.setitem(sections._entries, "user", User)
    monkeypatch.setattr(paper_session, "PAUSE", 0.01)
    ran: list[str] = []
    plain = Quick.run

    def record(kind: type[Quick], name: str, before: Callable[[], object]) -> None:
        def run(work: Work) -> Any:
            before()
            ran.append(name)
            return plain(work)

        monkeypatch.setattr(kind, "run", staticmethod(run))

    def start(folder: Path, *asked: list[str]) -> list[PaperReport]:
        sizes = {name: {"seconds": 1.0} for name in ("quick", "other", "user")}
        preset = quick_preset(sections={**open_preset("tiny").sections, **sizes})
        with ThreadPoolExecutor(len(asked)) as pool:
            runs = [pool.submit(run_paper, preset, folder, only=names) for names in asked]
            return [run.result(timeout=60) for run in runs]

    return SimpleNamespace(ran=ran, record=record, start=start)


def test_processes_share_the_sections_of_a_report(tmp_path: Path, together: Any):
    both = Barrier(2, timeout=30)
    together.record(Quick, "quick", both.wait)
    together.record(Other, "other", both.wait)
    reports = together.start(tmp_path, ["quick", "other"], ["quick", "other"])
    assert sorted(together.ran) == ["other", "quick"]
    assert all(report.outcomes.keys() == {"quick", "other"} for report in reports)
    told = json.loads((tmp_path / "paper.json").read_text())
    assert [one["finished"] for one in told["sessions"]] == [True, True]
    assert {one["state"] for one in told["sections"].values()} == {"done"}
    assert "over 2 sessions" in (tmp_path / "index.html").read_text()
    assert not list(tmp_path.glob(".latentmas-lock*"))


def test_a_section_waits_for_the_one_whose_teams_it_uses(
    tmp_path: Path, together: Any, capsys: pytest.CaptureFixture[str]
):
    begun = Event()
    together.record(Quick, "quick", lambda: (begun.set(), time.sleep(0.3)))
    together.record(Other, "other", lambda: begun.wait(30))
    together.record(User, "user", lambda: None)
    together.start(tmp_path, ["quick"], ["other", "user"])
    assert together.ran[-2:] == ["quick", "user"]
    assert "waiting for user, which other processes run" in capsys.readouterr().err


def test_a_section_that_failed_elsewhere_is_not_tried_again(tmp_path: Path, together: Any):
    begun = Event()

    def fail() -> None:
        begun.set()
        together.ran.append("tried")
        time.sleep(0.3)
        raise ValueError("no luck")

    together.record(Quick, "quick", fail)
    together.record(Other, "other", lambda: begun.wait(30))
    reports = together.start(tmp_path, ["quick"], ["other", "quick"])
    assert sorted(together.ran) == ["other", "tried"]
    assert [report.failed for report in reports] == [{"quick": "ValueError: no luck"}] * 2


def test_a_changed_section_runs_again_and_other_models_are_refused(
    tmp_path: Path, quick: type[Quick]
):
    run_paper(quick_preset(), tmp_path, only=["quick"], progress=False)
    quick.wrong = Skipped("asked again")
    assert not run_paper(quick_preset(), tmp_path, only=["quick"], progress=False).skipped
    more = run_paper(quick_preset(), tmp_path, only=["quick"], seeds=2, progress=False)
    assert more.skipped == {"quick": "asked again"}
    with pytest.raises(DataError, match=r"holds a report whose models is .*choose another folder"):
        run_paper(quick_preset(), tmp_path, models={"reader": "random:qwen3"}, progress=False)


@pytest.mark.parametrize(
    ("device", "can", "expected"),
    [
        ("cpu", {"amx_bf16": True}, "bfloat16"),
        ("cpu", {"avx512_bf16": True}, "float32"),
        ("cpu", {}, "float32"),
        ("cuda:1", {}, "bfloat16"),
    ],
)
def test_the_data_type_is_the_one_that_the_hardware_multiplies_fast(
    monkeypatch: pytest.MonkeyPatch, device: str, can: dict[str, bool], expected: str
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
    assert fast_dtype(device) == expected


def test_a_folder_keeps_the_data_type_that_it_was_begun_with(
    tmp_path: Path, quick: type[Quick], monkeypatch: pytest.MonkeyPatch
):
    def begin(can: dict[str, bool], **more: Any) -> str:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
        run_paper(quick_preset(**more), tmp_path, only=["quick"], progress=False)
        return str(json.loads((tmp_path / "paper.json").read_text())["preset"]["dtype"])

    assert begin({"amx_bf16": True}, dtype=None) == "bfloat16"
    assert begin({}, dtype=None) == "bfloat16"
    assert "in bfloat16." in (tmp_path / "index.html").read_text()
    with pytest.raises(DataError, match=r"holds a report whose dtype is 'bfloat16', and not 'flo"):
        begin({}, dtype="float32")


def test_a_preset_is_read_from_yaml_and_judged(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "seeds: 2\nmodels: {reader: a/b, answerer: a/b}\nsections: {relay: {rows: 16}}\n"
    )
    preset = open_preset(path)
    assert (preset.name, preset.seeds, preset.models["reader"]) == ("mine", 2, "a/b")
    assert (preset.sizes("relay").rows, preset.sizes("relay").steps) == (16, 100)
    assert preset.sizes("steps") == open_preset("small").sizes("steps")
    fewer = preset.changed(seeds=1, models={})
    assert fewer.sizes("relay").seconds == preset.sizes("relay").seconds / 2
    path.write_text("sedes: 2\nsections: {relay: {rows: 0}}\n")
    with pytest.raises(DataError, match=r"(?s)sections.relay.rows.*sedes"):
        open_preset(path)


def test_unknown_names_are_refused_before_anything_runs(tmp_path: Path):
    for given, error in (
        ({"preset": "smal"}, "preset 'smal' is unknown; known: small, tiny"),
        ({"models": {"readr": "x"}}, "did you mean 'reader'"),
        ({"data": {"gsm": "x"}}, "no section reads data named 'gsm'"),
        ({"data": {"gsm8k": "nowhere.jsonl"}}, "'nowhere.jsonl' is not a file"),
        ({"only": []}, "only is empty"),
    ):
        with pytest.raises(LatentMASError, match=error):
            run_paper(**{"preset": "tiny", "folder": tmp_path / "out", **given})
    with pytest.raises(UnknownNameError, match="did you mean 'relay'"):
        run_paper("tiny", tmp_path / "out", only=["relai"])
    assert not (tmp_path / "out").exists()


def test_the_command_lists_runs_and_ends_with_1_after_a_failure(tmp_path: Path, quick: type[Quick]):
    preset, out = tmp_path / "mine.yaml", tmp_path / "out"
    preset.write_text("note: A trial.\nseeds: 2\nsections: {quick: {seconds: 60}}\n")
    words = ["paper", "--preset", str(preset), "--only", "quick", "-o", str(out)]
    listed = CliRunner().invoke(app, [*words, "--list"])
    assert listed.exit_code == 0 and not out.exists()
    assert re.match(r"quick +waiting +1 min  2 seeds  Quick\nabout 0.0 CPU hours", listed.stdout)
    quick.wrong = ValueError("no luck")
    failed = CliRunner().invoke(app, words)
    assert failed.exit_code == 1
    assert "failed: quick; the same command runs them again" in failed.stderr
    quick.wrong = None
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["sections"]["quick"]["seeds"] == 2 and not told["failed"]
    words += ["--seeds", "1", "--model", "reader=a/b c"]
    assert CliRunner().invoke(app, words).exit_code == 1  # the folder is of other models
    words[words.index(str(out))] = str(tmp_path / "other")
    assert CliRunner().invoke(app, words).exit_code == 0
    again = "latentmas paper --preset mine.yaml --seeds 1 --model 'reader=a/b c' --only quick"
    assert f"<code>{escape(again)} -o other</code>" in (tmp_path / "other/index.html").read_text()
    assert CliRunner().invoke(app, [*words, "--seeds", "0"]).exit_code == 2
