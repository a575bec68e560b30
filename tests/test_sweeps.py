"""Sweeps: all combinations, checked at once, resumed to the byte, shared by processes."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import signal
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import latentmas as lm
from latentmas.errors import DataError, LatentMASError
from latentmas.runtime import SampleEnd
from latentmas.runtime.loading import placement
from latentmas.spec import Graph
from latentmas.studies import (
    FailedCell,
    Grid,
    StudyInterrupted,
    Sweep,
    plan_sweep,
    read_sweep,
    study,
    study_table,
)
from latentmas.testing import tiny_backbone
from tests.test_cli import call, words
from tests.test_watching import Interrupts

ROWS = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(6)]
BRIEF: dict[str, Any] = {
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "save_steps": 10,
    "telemetry": False,
    "probe_stability": False,
}
OVER: dict[str, Any] = {"link": ["soft_token", "recursive"], "train_rounds": [1, 2]}


def graph(**options: Any) -> lm.Graph:
    made = lm.Graph("pair", inputs=["question"], rounds=2, latent_steps=2)
    model = tiny_backbone("llama", 16)
    made.add_agent("reader", model, prompt="{% if back %}{{ back }}{% endif %}{{ question }}")
    made.add_agent("writer", model, prompt="{{ note }} {{ question }}", max_new_tokens=4)
    made.connect("reader", "writer.note", **options)
    made.feedback("writer", "reader.back", **options)
    return made.output("writer")


def lucky(text: str, gold: str) -> bool:
    """Neither always right nor always wrong about the texts of random models."""
    return hashlib.sha256(f"{text}{gold}".encode()).digest()[0] % 2 == 0


def run(folder: Path, base: Graph | None = None, **changes: Any) -> Sweep:
    """The study that most tests are about: eight evaluations of four cells."""
    given: dict[str, Any] = {
        "folder": folder,
        "over": OVER,
        "train_rows": ROWS,
        "training": {"loops": ["outer"], "learning_rate": 0.3, **BRIEF},
        "run_rounds": (1, 2),
        "grader": lucky,
        "do_sample": True,
        "batch_size": 3,
        "progress": False,
    }
    return lm.sweep(base or graph(), ROWS, **{**given, **changes})


def files(folder: Path) -> dict[str, str]:
    """The table in all formats, and the plots."""
    found = read_sweep(folder)
    written = [
        found.table().write(folder / f"table.{kind}") for kind in ("md", "tex", "csv", "json")
    ]
    written += [plot.save(folder / f"{name}.svg") for name, plot in found.plots().items()]
    return {path.name: path.read_text() for path in written}


def forked(work: Callable[[], object]) -> int:
    """Run a function in a copy of this process; returns its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def after(count: int, act: Callable[[], object]) -> Callable[[Any], None]:
    """A watcher that acts when so many rows have ended."""
    ended: list[int] = []

    def watch(event: Any) -> None:
        if isinstance(event, SampleEnd):
            ended.append(event.sample)
            if len(ended) == count:
                act()

    return watch


def stop() -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> Iterator[None]:
    """Every training collects garbage: what is imported need not be looked through each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that ran without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


# --- the grid ---------------------------------------------------------------------------------

VALUES = st.lists(st.integers(-9, 9) | st.sampled_from("abc"), min_size=1, max_size=4, unique=True)


@given(
    st.dictionaries(st.sampled_from(["u", "v", "w"]), VALUES, max_size=3),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
def test_a_grid_is_exactly_the_product(over: dict[str, list[Any]], seeds: list[int]) -> None:
    cells = Grid({name: tuple(own) for name, own in over.items()}, tuple(seeds)).cells()
    count = len(seeds)
    for values in over.values():
        count *= len(values)
    assert len(cells) == count
    assert len({json.dumps(cell, sort_keys=True) for cell in cells}) == count
    for cell in cells:
        assert cell.keys() == {*over, "seed"} and cell["seed"] in seeds
        assert all(cell[name] in values for name, values in over.items())


def planned(over: dict[str, Any], *, base: Graph | None = None, **more: Any) -> Any:
    return plan_sweep(base or graph(), ROWS, folder="unused", over=over, **more)


def test_each_setting_changes_what_it_names() -> None:
    other = tiny_backbone("llama", 32).source
    over: dict[str, list[Any]] = {
        "link": ["mlp"],
        "inner": ["recursive"],
        "link.expansion": [3],
        "latent_steps": [1],
        "max_new_tokens": [5],
        "rounds": [3],
        "backbone": [other],
        "train_rounds": [2],
        "outer.learning_rate": [1e-2],
    }
    (cell,) = planned(over, train_rows=ROWS, training={"loops": ["outer"]})
    plan = cell.plan
    kinds = {link.role: (link.kind, link.options["expansion"]) for link in plan.links}
    assert kinds == {"outer": ("mlp", 3), "inner": ("recursive", 1)}
    assert (plan.graph.rounds, plan.graph.latent_steps) == (3, 1)
    assert {agent.max_new_tokens for agent in plan.graph.agents} == {5}
    assert {one.spec.source for one in plan.backbones.values()} == {other}
    assert cell.training["settings"] == {"outer": {"rounds": 2, "learning_rate": 1e-2}}
    (wide,) = planned({"expansion": [4]}, base=graph(link="recursive"))
    assert {link.options["expansion"] for link in wide.plan.links} == {4}
    (near,) = planned({"init": ["near_identity"]}, base=graph(link="recursive"))
    inits = {link.role: link.init for link in near.plan.links}
    assert inits == {"outer": "near_identity", "inner": "default"}
    (named,) = planned({"backbone.reader": [other]})
    assert named.plan.graph.backbones.keys() == graph().spec().backbones.keys()


def test_a_setting_may_be_idle_in_some_cells() -> None:
    over = {"link": ["text", "soft_token"], "latent_steps": [1, 2]}
    cells = planned(over, run_rounds=2)
    assert [one.cell.settings["latent_steps"] for one in cells] == [1, 2, 1, 2]
    assert cells[0].plan.steps == cells[1].plan.steps


def test_training_for_fewer_rounds_leaves_out_what_it_cannot_reach() -> None:
    one, two = planned({"train_rounds": [1, 2]}, train_rows=ROWS)
    assert one.training["settings"]["outer"]["train_links"] == ["outer.reader->writer.note"]
    assert "train_links" not in two.training["settings"]["outer"]


TRAINS: dict[str, Any] = {"train_rows": ROWS}
PROBLEMS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"lnk": [1]}, {}, "lnk: cannot be varied; did you mean 'link'?"),
    ({"learning_rate": [1]}, {}, "'outer.learning_rate'"),
    ({"colour": [1]}, {}, "known: backbone, link, inner, init"),
    ({"outr.max_steps": [1]}, {}, "did you mean 'outer.max_steps'?"),
    ({"outer.max_step": [1]}, {}, "has no field 'max_step'; did you mean 'outer.max_steps'?"),
    ({"outer.seed": [1]}, {}, "give the seeds with seeds="),
    ({"link": ["recursiv"]}, {}, "not a link kind; did you mean 'recursive'?"),
    ({"link": [3]}, {}, "link: takes text, found 3"),
    ({"link.temprature": [1]}, {}, "(kinds: soft_token); did you mean 'temperature'?"),
    ({"link": ["mlp"], "link.temperature": [1]}, {}, "no link has the option 'temperature'"),
    ({"link.temperature": [-1]}, {}, "LM121"),
    (
        {"link": ["mlp", "soft_token"], "link.temperature": [1]},
        {},
        "link=mlp, link.temperature=1: link.temperature has no effect",
    ),
    ({"init": ["rigde"]}, {}, "no link can start with init='rigde'"),
    ({"backbone.raeder": ["x"]}, {}, "did you mean 'backbone.reader'?"),
    ({"backbone": ["/nowhere"]}, {}, "LM201"),
    ({"latent_steps": ["a", True]}, {}, "takes a whole number, found True"),
    ({"latent_steps": [4, 4]}, {}, "latent_steps: 4 is listed twice"),
    ({"latent_steps": []}, {}, "has no values"),
    ({"latent_steps": [0]}, {}, "LM113"),
    ({"latent_steps": [1]}, {"latent_steps": 3}, "the evaluations are given latent_steps as well"),
    ({"max_new_tokens": [0]}, {}, "takes 1 or more, found 0"),
    ({"train_rounds": [1]}, {}, "train_rounds: has no effect without training"),
    ({"outer.learning_rate": ["x"]}, TRAINS, "takes a number, found 'x'"),
    ({"rollout.max_steps": [1]}, TRAINS, "since the rollout loop does not run"),
    ({"outer.max_steps": [-3]}, TRAINS, "max_steps: takes 1 or more, found -3"),
    ({"outer.gradient_checkpointing": [True]}, TRAINS, "inside a model; to save memory here"),
    ({"outer.rounds": [1]}, TRAINS | {"training": {"settings": {"outer": {"rounds": 2}}}}, "too;"),
    ({"link": ["text"]}, TRAINS, "link=text: LM402"),
    ({}, TRAINS | {"training": {"seed": 1}}, "'seed' is set by the sweep itself"),
    ({}, TRAINS | {"training": {"max_step": 1}}, "did you mean 'max_steps'?"),
    ({"rounds": [2, 3]}, {"run_rounds": [1]}, "rounds: has no effect, since run_rounds"),
    ({}, {"run_rounds": [1], "rounds": 2}, "run_rounds: leave out rounds"),
    ({}, {"run_rounds": [101]}, "run_rounds: rounds is 101; choose rounds from 1 to 100"),
    ({}, {"run_rounds": [0, 0]}, "run_rounds: a number is listed twice"),
    ({}, {"seeds": [-1]}, "seeds: takes whole numbers from 0"),
    ({}, {"seeds": 0}, "seeds: give at least one"),
    ({}, {"seeds": 2}, "seeds: several seeds have no effect"),
    (
        {"inner.expansion": [1, 2]},
        {},
        "inner.expansion: has no effect; inner.expansion=1 and inner.expansion=2 make the same",
    ),
    ({"link.expansion": ["a"]}, {}, "expansion"),
    ({}, {"output": "x"}, "sweep takes no 'output'"),
    ({}, {"controls": ["nothing"]}, "unknown control 'nothing'"),
    ({}, {"controls": "twin"}, "controls is a sequence"),
]


@pytest.mark.parametrize(("over", "more", "said"), PROBLEMS, ids=[p[2][:30] for p in PROBLEMS])
def test_mistakes_are_named_before_anything_is_loaded(
    over: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(LatentMASError) as error:
        planned(over, **more)
    assert said in str(error.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(LatentMASError) as error:
        planned({"lnk": ["x"], "link": ["mpl"], "latent_steps": [1, 0, -1], "outer.max_steps": [1]})
    lines = str(error.value).splitlines()
    assert lines[0] == "6 problems in the sweep"
    found = [line.split(":")[0].strip() for line in lines[1:]]
    assert found == ["lnk", "link", "latent_steps", "outer.max_steps", *["latent_steps=0"] * 2]


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"link": "mlp"}, "over['link'] is 'mlp'; give a list of values"),
        ({"link": [["mlp"]]}, "give plain values"),
    ],
)
def test_values_are_lists_of_plain_values(over: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError) as error:
        planned(over)
    assert said in str(error.value)


def test_other_arguments_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="did you mean 'batch_size'"):
        planned({}, batch_sise=3)
    with pytest.raises(TypeError, match=r"save a system with system.save_pretrained"):
        plan_sweep(3, ROWS, folder="unused", over={})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"sample 1.*answer"):
        plan_sweep(graph(), [*ROWS[:1], {"question": "a"}], folder="unused", over={})
    with pytest.raises(DataError, match="no rows to evaluate"):
        plan_sweep(graph(), [], folder="unused", over={})
    with pytest.raises(DataError, match="does not hold the results of a sweep"):
        read_sweep(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LatentMASError, match="torchrun has started 2; start the same sweep"):
        lm.sweep(graph(), ROWS, folder=tmp_path / "new", over={})


# --- running ----------------------------------------------------------------------------------


def test_a_study_is_kept_and_read_again(whole: Path, capfd: Any) -> None:
    again = run(whole, progress=True)
    assert capfd.readouterr().err.count("(from before)") == 4
    assert [dict(cell.settings) for cell in again.cells] == again.grid.cells()
    assert again.table() == read_sweep(whole).table()
    rows = again.table().rows
    assert [dict(row.settings) for row in rows[:3]] == [
        {"link": "soft_token", "train_rounds": 1, "run_rounds": 1},
        {"link": "soft_token", "train_rounds": 1, "run_rounds": 2},
        {"link": "soft_token", "train_rounds": 2, "run_rounds": 1},
    ]
    assert len({row.by_row for row in rows}) > 4, "cells that do not differ compare nothing"
    assert not list(whole.glob("*/training/*/checkpoint-*"))
    assert (whole / "link=recursive,train_rounds=2,seed=0/training/team/latentmas.json").exists()


def test_no_interruption_changes_a_byte_of_the_table(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a training, Ctrl-C in an evaluation, and kill -9, one after another."""
    with monkeypatch.context() as patched:
        patched.setattr(study, "train", partial(lm.train, callbacks=[Interrupts(2)]))
        with pytest.raises(StudyInterrupted) as stopped:
            run(tmp_path)
    assert (stopped.value.finished, stopped.value.total) == (0, 4)
    assert f"lm.sweep(…, folder={str(tmp_path)!r}, resume=True)" in str(stopped.value)
    kept = sorted(path.name for path in tmp_path.glob("*/training/1-outer/checkpoint-*"))
    assert kept == ["checkpoint-2"]

    with pytest.raises(StudyInterrupted) as stopped:
        run(tmp_path, on_event=after(16, stop))
    assert stopped.value.finished == 1
    part = read_sweep(tmp_path)
    assert len(part.cells) == 1 and "Number of cells that have not been run: 3." in str(part)

    def work() -> None:
        run(tmp_path, on_event=after(20, lambda: os.kill(os.getpid(), signal.SIGKILL)))

    _, status = os.waitpid(forked(work), 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert 1 < len(read_sweep(tmp_path).cells) < 4
    run(tmp_path)
    assert files(tmp_path) == files(whole)


def test_processes_share_a_study(whole: Path, tmp_path: Path, capfd: Any) -> None:
    child = forked(lambda: run(tmp_path, progress=True))
    while not list(tmp_path.glob("*/begun.json")):
        time.sleep(0.01)
    mine = run(tmp_path, progress=True)
    os.waitpid(child, 0)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("[")]
    ran = [line.split(": ")[0].split("] ")[1] for line in lines if "(from before)" not in line]
    assert sorted(ran) == sorted(f"link={a}, train_rounds={b}, seed=0" for a, b in pairs())
    assert len(mine.cells) == 4
    assert files(tmp_path) == files(whole)


def pairs() -> list[tuple[Any, Any]]:
    return [(link, rounds) for link in OVER["link"] for rounds in OVER["train_rounds"]]


def test_a_failed_cell_is_on_record_and_the_others_go_on(tmp_path: Path, capfd: Any) -> None:
    given: dict[str, Any] = {
        "base": graph(link="recursive"),
        "over": {"outer.learning_rate": [1e30, 1e-3]},
        "training": {"loops": ["outer"], **BRIEF},
        "run_rounds": (),
        "progress": True,
    }
    found = run(tmp_path, **given)
    assert [cell.settings["outer.learning_rate"] for cell in found.cells] == [1e-3]
    (failed,) = found.failed
    assert failed.error.startswith("LM403") and "Traceback" in failed.traceback
    assert "failed: LM403" in capfd.readouterr().err
    text = found.table().markdown()
    assert "| 1e+30 | 0, 1 failed | failed |" in text and "1 cell failed: LM403" in text
    record = next(tmp_path.glob("*/failed.json"))
    before = record.stat().st_mtime_ns
    assert run(tmp_path, **given).failed == [failed]
    assert record.stat().st_mtime_ns == before, "a failed cell ran again without resume"
    run(tmp_path, **given, resume=True)
    assert record.stat().st_mtime_ns > before, "a failed cell did not run again with resume"


def test_a_study_grows_and_refuses_other_data(tmp_path: Path) -> None:
    base = graph(link="recursive")
    more: dict[str, Any] = {"folder": tmp_path, "grader": lucky, "progress": False}
    one = lm.sweep(base, ROWS, over={"latent_steps": [1]}, run_rounds=[1], **more)
    stamp = (tmp_path / "latent_steps=1,seed=0" / "rows-rounds=1.jsonl").stat().st_mtime_ns
    two = lm.sweep(base, ROWS, over={"latent_steps": [1, 2]}, run_rounds=[1, 2], seeds=2, **more)
    assert len(two.cells) == 4 and len(two.table().rows) == 4
    assert (tmp_path / "latent_steps=1,seed=0" / "rows-rounds=1.jsonl").stat().st_mtime_ns == stamp
    old = one.cells[0].evaluation("rounds=1")
    assert two.cells[0].evaluation("rounds=1") == old
    with pytest.raises(DataError, match=r"holds 2 of these cells for another team.*seed=1"):
        lm.sweep(base, ROWS[:5], over={"latent_steps": [2]}, seeds=2, **more)


def test_backbones_are_loaded_once_while_cells_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = placement.load_backbone

    def counted(planned: Any, **options: Any) -> Any:
        loaded.append(planned.spec.source)
        return load(planned, **options)

    monkeypatch.setattr(placement, "load_backbone", counted)
    sources = [tiny_backbone("llama", width).source for width in (16, 24)]
    over = {"latent_steps": [1, 2], "backbone": sources}
    found = lm.sweep(graph(), ROWS[:2], folder=tmp_path, over=over, progress=False)
    assert loaded == sources
    assert [cell.settings["backbone"] for cell in found.cells] == sources * 2


def test_a_saved_team_is_where_all_cells_start(tmp_path: Path) -> None:
    base = graph(link="recursive").compile()
    folder = base.load(seed=5).save_pretrained(tmp_path / "team")
    more: dict[str, Any] = {"progress": False, "grader": lucky}
    found = lm.sweep(folder, ROWS, folder=tmp_path / "a", over={"rounds": [2, 3]}, **more)
    scores = [
        lm.evaluate(base.load(seed=5), ROWS, grader=lucky, rounds=n).row_scores for n in (2, 3)
    ]
    assert [tuple(cell.evaluation()["row_scores"]) for cell in found.cells] == scores
    with pytest.raises(LatentMASError, match=r"link=mlp: .*saved team, whose links cannot change"):
        lm.sweep(folder, ROWS, folder=tmp_path / "b", over={"link": ["mlp"]}, **more)


def test_sampled_answers_use_the_seed_of_the_cell(tmp_path: Path) -> None:
    more: dict[str, Any] = {"do_sample": True, "temperature": 5.0, "progress": False}
    found = lm.sweep(graph(), ROWS, folder=tmp_path, over={}, seeds=2, **more)
    texts = [
        [
            json.loads(line)["answers"]
            for line in (cell.folder / "rows.jsonl").read_text().splitlines()
        ]
        for cell in found.cells
    ]
    assert texts[0] != texts[1]
    assert found.table().names == () and len(found.table().rows) == 1


# --- the table and the plots ------------------------------------------------------------------


def cell(scores: list[float], **settings: Any) -> Any:
    """A finished cell with these scores."""
    from latentmas.studies import CellResult

    found = {
        "grader": "exact",
        "rows": len(scores),
        "score": sum(scores) / len(scores),
        "interval": [0.0, 1.0],
        "row_scores": scores,
        "row_questions": list(range(len(scores))),
        "new_tokens": 10 * len(scores),
        "latent_steps": 4 * len(scores),
        "others": {"zeroed": {"row_scores": [0.0] * len(scores)}},
    }
    return CellResult(settings, "d", {"": found}, {}, 1.0, {}, {}, Path("cell"))


def test_a_row_is_the_mean_over_seeds_with_an_interval_by_question() -> None:
    half = [1.0, 1.0, 0.0, 0.0] * 8
    more = [1.0, 1.0, 1.0, 0.0] * 8
    table = study_table([cell(half, k=1, seed=0), cell(more, k=1, seed=1), cell(more, k=2, seed=0)])
    one, two = table.rows
    assert one.scores == (0.5, 0.75) and one.score == 0.625
    assert one.deviation == pytest.approx(0.17677669529663687)
    by_row = [(a + b) / 2 for a, b in zip(half, more, strict=True)]
    from latentmas.evaluation import mean_interval, paired_difference, wilson

    assert one.interval == mean_interval(by_row, range(32))
    assert one.difference is None and two.deviation is None
    assert two.interval == wilson(0.75, 32)
    assert two.difference == paired_difference(more, by_row)
    assert two.others["zeroed"] == paired_difference(more, [0.0] * 32)
    assert "Highest score: k=2, 75.0 (57.9 to 86.7). Its paired difference from each" in str(table)
    level = study_table([cell(half, k=1, seed=0), cell(half, k=2, seed=0)])
    assert level.rows[1].difference is not None
    low, high = level.rows[1].difference.interval
    assert low < 0 < high, "equal scores prove nothing"
    assert "Highest score: k=1, 50.0 (33.6 to 66.4). The interval" in str(level)


def test_equal_scores_of_all_rows_and_seeds_have_an_interval_with_a_width() -> None:
    table = study_table([cell([0.5] * 9, k=1, seed=seed) for seed in range(3)])
    low, high = table.rows[0].interval or (0, 0)
    assert low < 0.5 < high


def test_the_table_in_all_formats(tmp_path: Path) -> None:
    failed = FailedCell({"a|b": "x_y", "seed": 0}, "LM403 no", "LatentMASError", "d", "")
    table = study_table([failed, cell([1.0, 0.0], **{"a|b": "-1%", "seed": 0})])
    assert table.markdown().splitlines()[:4] == [
        "| a|b | seeds | score | 95 % interval | less first row | less zeroed | tokens "
        "| latent steps |".replace("a|b", "a\\|b"),
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        "| x_y | 0, 1 failed | failed |  |  |  |  |  |",
        "| -1% | 1 | 50.0 | 9.5 to 90.5 |  | +50.0 (-48.6 to +90.5) | 10 | 4 |",
    ]
    latex = table.latex()
    assert r"x\_y & 0, 1 failed & failed &  &  &  &  &  \\" in latex
    assert r"+50.0 ($-$48.6 to +90.5)" in latex and r"\begin{tabular}{lrrrrrrr}" in latex
    lines = table.csv().splitlines()
    assert lines[0].startswith("a|b,seeds,failed,score,deviation,low,high,less_first_row,")
    assert lines[1].startswith("x_y,0,1,,,,,,,,,,,") and lines[2].startswith("-1%,1,0,0.5,,0.09")
    assert json.loads(table.write(tmp_path / "t.json").read_text())["rows"][1]["score"] == 0.5
    with pytest.raises(DataError, match=r"must end in \.md, \.tex, \.json, \.txt or \.csv"):
        table.write(tmp_path / "t.doc")
    with pytest.raises(DataError, match="at least one cell"):
        study_table([])


def test_plots_and_page_show_the_table(whole: Path, tmp_path: Path) -> None:
    found = read_sweep(whole)
    written = {path.name for path in found.write(tmp_path)}
    assert {"heat-map.svg", "heat-map-2.png", "score-over-run_rounds.svg"} <= written
    assert {"table.md", "table.tex", "table.csv", "table.json", "index.html"} <= written
    for path in tmp_path.glob("*.svg"):
        ET.fromstring(path.read_text())
    for path in tmp_path.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    row = found.table().rows[0]
    assert row.score is not None and row.interval is not None
    shown = (tmp_path / "heat-map.svg").read_text()
    assert f">{100 * row.score:.1f}<" in shown
    assert f"{100 * row.interval[0]:.1f} to {100 * row.interval[1]:.1f}" in shown
    page = (tmp_path / "index.html").read_text()
    assert page.count('<details class="cell">') == 4 and "Highest score" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return graph().save(tmp_path / "team.yaml"), rows


def test_the_command_runs_a_sweep(paths: tuple[Path, Path], tmp_path: Path) -> None:
    team, rows = paths
    common = ("sweep", team, "--data", rows, "--over", "latent_steps=1,2", "-o", tmp_path / "out")
    listed = call(*common, "--dry-run")
    assert listed.stdout.splitlines()[:2] == ["2 cells", "  latent_steps=1,seed=0"]
    assert not (tmp_path / "out").exists()
    done = call(*common, "--limit", 2, "--controls", "zeroed", "--grader", "contains")
    assert "latent_steps  seeds" in done.stdout and "The teams are not trained." in done.stdout
    assert "[2/2] latent_steps=2, seed=0: " in done.stderr and "index.html" in done.stderr
    again = call(*common, "--limit", 2, "--controls", "zeroed", "--grader", "contains", "--json")
    assert [row["seeds"] for row in json.loads(again.stdout)["rows"]] == [1, 1]
    trained = ("--train-data", rows, "--steps", 3, "--loop", "outer")
    failing = (*common[:4], "--over", "outer.learning_rate=1e30", "-o", tmp_path / "bad")
    graph(link="recursive").save(team)
    bad = call(*failing, *trained, "--run-rounds", "1,2", "--seeds", "3,", code=1)
    assert "failed: outer.learning_rate=1e+30, seed=3: LM403" in bad.stderr
    assert "--resume" in bad.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--over", "latent_steps"), 2, "--over takes name=value"),
        (("--over", "latent_steps=1,,2"), 2, "--over takes NAME=V1,V2"),
        (("--over", "latent_steps=1", "--seeds", "x"), 2, "--seeds takes whole numbers"),
        (("--over", "latent_steps=1", "--run-rounds", "1;2"), 2, "--run-rounds takes whole"),
        (("--over", "latent_steps=1", "--steps", "3"), 2, "--steps requires --train-data"),
        (("--over", "latnt_steps=1"), 1, "did you mean 'latent_steps'?"),
    ],
)
def test_the_command_explains_what_it_cannot_read(
    paths: tuple[Path, Path], tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    team, rows = paths
    done = call("sweep", team, "--data", rows, "-o", tmp_path / "out", *options, code=code)
    assert said in words(done.stderr)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_prints_the_command_that_resumes(
    paths: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team, rows = paths
    folder = tmp_path / "out"
    given = ["sweep", str(team), "--data", str(rows), "--over", "latent_steps=1", "-o", str(folder)]
    monkeypatch.setattr("sys.argv", ["latentmas", *given])
    monkeypatch.setattr("latentmas.studies.study.run_cell", lambda *_, **__: stop())
    done = call(*given, code=130)
    assert "interrupted; 0 of 1 cells are finished" in done.stderr
    assert f"latentmas {' '.join(given)} --resume" in done.stderr
