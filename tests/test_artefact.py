"""Saved teams over time: round trips, newer formats, other backbones, crashes while writing."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import latentmas as lm
from latentmas.compiler import compile_graph
from latentmas.io import load as load_module
from latentmas.io import save_system
from latentmas.io.storage import folder as _folder
from latentmas.io.storage import lock as _lock
from latentmas.runtime import TrainingRecord
from latentmas.spec import GraphSpec
from tests.strategies import Facts, valid_graphs
from tests.teams import of_template, sequential, tiny

FUNCTIONS = {name: lambda sample: "t" for name in ("rules", "clock")}
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def system() -> lm.System:
    return sequential(rounds=2).compile().load()


@pytest.fixture
def saved(system: lm.System, tmp_path: Path) -> Path:
    return system.save_pretrained(tmp_path / "team")


def load(folder: Path, reuse: lm.System, **options: Any) -> lm.System:
    return lm.System.from_pretrained(folder, reuse=reuse, **options)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def same_weights(a: lm.System, b: lm.System) -> bool:
    ours, theirs = a.link_state(), b.link_state()
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name])
        for name in ours
    )


# --- there and back ---------------------------------------------------------------------------


def check_round_trip(system: lm.System, folder: Path, **options: Any) -> None:
    again = load(system.save_pretrained(folder / "one"), system, **options)
    assert again.plan == system.plan and again.plan.diff(system.plan) == []
    assert same_weights(again, system)
    assert contents(again.save_pretrained(folder / "two")) == contents(folder / "one")


@pytest.mark.parametrize("name", sorted(set(lm.templates.names()) - set(lm.templates.PRESETS)))
def test_every_template_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    check_round_trip(of_template(name, "llama").compile().load(seed=5), tmp_path)


@pytest.fixture(scope="module")
def pool() -> lm.System:
    """Backbones of every width that random graphs have, loaded once."""
    graph = lm.Graph("pool", inputs=["x"], rounds=1, latent_steps=1)
    names = {f"a{width}_{seed}": (width, seed) for width in (8, 16, 24) for seed in (0, 1)}
    for name, (width, seed) in names.items():
        graph.add_agent(name, tiny("llama", width, seed=seed), prompt="{{ x }}")
    slots = " ".join(f"{{{{ {name} }}}}" for name in names)
    graph.add_agent("last", tiny("llama", 8), prompt=slots)
    for name in names:
        graph.connect(name, "last", link="text")
    return graph.output("last").compile().load()


def on_real_backbones(graph: GraphSpec, facts: Facts) -> GraphSpec:
    """The graph with tiny models of the widths that it was made for."""
    backbones = {}
    for key, spec in graph.backbones.items():
        width = (facts.get(key) or facts[spec.source]).hidden_size
        seed = 0 if spec.source.endswith("one") else 1
        backbones[key] = tiny("llama", width, seed=seed)
    return graph.replace(backbones=backbones)


@settings(max_examples=25)
@given(made=valid_graphs(max_agents=5), seed=st.integers(0, 99))
def test_random_graphs_come_back_bit_for_bit(
    made: tuple[GraphSpec, Facts], seed: int, pool: lm.System, tmp_path_factory: Any
) -> None:
    graph = on_real_backbones(*made)
    said = {source.name for source in graph.text_sources if source.text is None}
    options: dict[str, Any] = {
        "text_functions": {name: made for name, made in FUNCTIONS.items() if name in said}
    }
    system = lm.System.load(compile_graph(graph), reuse=pool, seed=seed, **options)
    check_round_trip(system, tmp_path_factory.mktemp("graph"), **options)


def test_history_and_scores_come_back(system: lm.System, tmp_path: Path) -> None:
    team = lm.System.load(system.plan, reuse=system)
    team.history = [
        TrainingRecord("inner", {"seed": n}, [{"loss": 0.5, "step": 1}, {"x": None}], {"steps": n})
        for n in range(11)
    ]
    scores = [lm.Score("exact_match", 0.5, n=10, data="a|b", settings={"rounds": 2})]
    folder = team.save_pretrained(tmp_path / "team", scores=scores)
    again = load(folder, system)
    assert again.history == team.history and again.scores == scores
    assert contents(again.save_pretrained(tmp_path / "again")) == contents(folder)
    better = [lm.Score("exact_match", 0.75, n=20, data="a|b", settings={"rounds": 2})]
    assert load(again.save_pretrained(folder, scores=better), system).scores == better
    team.history, team.scores = [], []
    team.save_pretrained(folder)
    assert not (folder / "training").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda: lm.Score("x", float("nan")),
        lambda: lm.Score("x", 0.5, high=float("inf")),
        lambda: lm.Score("x", 0.5, n=0),
        lambda: TrainingRecord("../x", {}, [], {}),
        lambda: TrainingRecord("", {}, [], {}),
    ],
)
def test_what_could_not_be_read_back_is_refused_when_it_is_made(make: Callable[[], Any]) -> None:
    with pytest.raises(lm.DataError):
        make()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("training/1-inner/log.jsonl", "{"),
        ("training/1-inner/arguments.json", "[1]"),
        ("training/1-inner/manifest.json", "[" * 9999),
        ("training/scores.json", '[{"metric": "x", "value": "high"}]'),
        ("training/scores.json", "3"),
    ],
)
def test_damaged_records_are_refused(
    name: str, text: str, system: lm.System, tmp_path: Path
) -> None:
    team = lm.System.load(system.plan, reuse=system)
    team.history = [TrainingRecord("inner", {}, [{}], {})]
    folder = team.save_pretrained(tmp_path / "team", scores=[lm.Score("loss", 1.0)])
    (folder / name).write_text(text)
    with pytest.raises(lm.WeightsError, match=f"LM502 .*{Path(name).name}"):
        load(folder, system)


# --- newer formats ----------------------------------------------------------------------------


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "latentmas.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def newer(data: dict[str, Any]) -> None:
    data.update(version=2, latentmas="9.4.1", mood="calm")
    data["graph"]["agents"][0]["gate"] = 0.5
    data["links"][1]["rank"] = 4
    next(iter(data["facts"].values()))["experts"] = 8


def test_unknown_fields_of_a_newer_format_warn_with_what_to_upgrade(
    system: lm.System, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit(saved, newer)
    with caplog.at_level(logging.WARNING, "latentmas"):
        again = load(saved, system)
    assert again.plan == system.plan and same_weights(again, system)
    (record,) = caplog.records
    message = record.getMessage()
    for name in ("mood", "graph.agents.0.gate", "links.1.rank", ".experts"):
        assert name in message
    assert "pip install -U 'latentmas>=9.4.1'" in message and "(format 2)" in message


def test_a_newer_release_of_the_same_format_warns_too(
    system: lm.System, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit(saved, lambda data: data.update(latentmas="0.11.0rc1", mood="calm"))
    load(saved, system)
    assert "ignoring fields unknown here: mood" in caplog.text


def test_a_newer_format_without_unknown_fields_says_nothing(
    system: lm.System, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit(saved, lambda data: data.update(version=2))
    assert load(saved, system).plan == system.plan
    assert not caplog.records


def test_what_a_newer_format_changes_is_refused_with_what_to_upgrade(
    system: lm.System, saved: Path
) -> None:
    def change(data: dict[str, Any]) -> None:
        data.update(version=2, latentmas="2.0")
        data["graph"]["edges"][0]["link"]["kind"] = "telepathy"

    edit(saved, change)
    with pytest.raises(lm.WeightsError, match=r"LM502 (.|\n)*telepathy") as caught:
        load(saved, system)
    assert "pip install -U 'latentmas>=2.0'" in str(caught.value)


def test_a_newer_format_with_another_link_table_is_refused(system: lm.System, saved: Path) -> None:
    edit(saved, lambda data: (newer(data), data["links"][1].update(in_dim=8)))
    with pytest.raises(lm.WeightsError, match="LM501"):
        load(saved, system)


def test_unknown_fields_of_this_format_are_refused(system: lm.System, saved: Path) -> None:
    edit(saved, lambda data: data.update(mood="calm"))
    with pytest.raises(lm.WeightsError, match=r"LM502 (.|\n)*mood"):
        load(saved, system)


# --- a changed graph --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (lambda data: data["graph"].update(rounds=3), ["rounds: 2 -> 3"]),
        (lambda data: data["graph"].update(name="mine"), ["name: sequential -> mine"]),
        (
            lambda data: data["graph"]["agents"][1].update(latent_steps=9),
            ["agent critic: latent_steps none -> 9"],
        ),
    ],
)
def test_a_changed_graph_is_refused_with_the_difference(
    change: Any, lines: list[str], system: lm.System, saved: Path
) -> None:
    edit(saved, change)
    with pytest.raises(lm.WeightsError, match=r"^LM501") as caught:
        load(saved, system)
    for line in (*lines, "system.load_links(folder)"):
        assert line in str(caught.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda links: links[1].update(in_dim=8), "the file says in_dim 8, the graph 32"),
        (lambda links: links.pop(1), "the file lacks link "),
        (lambda links: links.append(links[0] | {"id": "x"}), "the file has a link x that the"),
        (lambda links: links.reverse(), "the links are in a different order"),
    ],
)
def test_a_changed_link_table_is_refused_with_the_difference(
    change: Any, line: str, system: lm.System, saved: Path
) -> None:
    """The digest is that of the graph, which is the same: to show it twice would say nothing."""
    edit(saved, lambda data: change(data["links"]))
    with pytest.raises(
        lm.WeightsError, match=r"^LM501 .* the link table differs from the one"
    ) as caught:
        load(saved, system)
    assert line in str(caught.value) and "digest" not in str(caught.value)


def test_digests_that_begin_alike_are_shown_whole(system: lm.System, saved: Path) -> None:
    other = system.plan.digest[:12] + "0" * 52
    edit(saved, lambda data: data.update(digest=other))
    with pytest.raises(lm.WeightsError, match=f"digest {system.plan.digest}, but .* {other};"):
        load(saved, system)


def test_a_changed_prompt_is_refused_with_its_agent(system: lm.System, saved: Path) -> None:
    path = saved / "prompts" / "critic.jinja"
    path.write_text(path.read_text() + "!")
    with pytest.raises(lm.WeightsError, match="agent critic: prompt changed"):
        load(saved, system)


def test_weights_of_another_save_are_refused(system: lm.System, saved: Path) -> None:
    path = saved / "links.safetensors"
    weights = load_file(path)
    save_file({name: tensor + 1 for name, tensor in weights.items()}, path)
    with pytest.raises(lm.WeightsError, match=r"LM503 .*SHA-256"):
        load(saved, system)


# --- other backbones --------------------------------------------------------------------------


def test_a_backbone_is_swapped_for_one_agent_for_all_or_by_source(
    system: lm.System, saved: Path
) -> None:
    other = tiny("qwen3", 16, seed=3)
    old = system.plan.graph.backbones[system.plan.graph.agent("planner").backbone]
    sources = {
        name: load(saved, system, backbones=swaps).plan
        for name, swaps in {
            "agent": {"planner": other},
            "source": {old.source: other.source},
            "all": {"planner": other, "solver": other},
            "most particular": {old.source: other, "planner": old},
        }.items()
    }

    def on_other(plan: lm.Plan) -> set[str]:
        found = {b.spec.source: set(b.agents) for b in plan.backbones.values()}
        return found.get(other.source, set())

    assert on_other(sources["agent"]) == {"planner"}
    assert on_other(sources["source"]) == on_other(sources["all"]) == {"planner", "solver"}
    assert on_other(sources["most particular"]) == {"solver"}


def test_links_stay_when_a_backbone_is_swapped(system: lm.System, saved: Path) -> None:
    other = tiny("qwen3", 16, seed=3)
    swapped = load(saved, system, backbones={"planner": other})
    assert same_weights(swapped, system)
    assert swapped.backbone_of("planner").planned.spec == other
    assert swapped.backbone_of("solver") is system.backbone_of("solver")
    assert swapped.run(["x"], max_new_tokens=2).token_ids
    again = load(swapped.save_pretrained(saved.parent / "again"), swapped)
    assert again.plan == swapped.plan and same_weights(again, system)


@pytest.mark.parametrize("width", [32, 24])
def test_a_backbone_of_another_width_is_refused(width: int, system: lm.System, saved: Path) -> None:
    with pytest.raises(lm.WeightsError, match="LM501 agent 'planner'") as caught:
        load(saved, system, backbones={"planner": tiny("llama", width)})
    assert "of width 16" in str(caught.value) and f"has width {width}" in str(caught.value)


def test_a_swap_of_nobody_is_refused(system: lm.System, saved: Path) -> None:
    with pytest.raises(lm.UnknownNameError, match="did you mean 'planner'"):
        load(saved, system, backbones={"plannr": tiny("llama", 16)})


def test_a_backbone_that_is_gone_can_be_replaced(tmp_path: Path) -> None:
    here = lm.testing.tiny_backbone("llama", 16, folder=tmp_path / "here")
    graph = lm.templates.distillation(expert=here, learner=here, rounds=1, latent_steps=2)
    folder = graph.compile().load().save_pretrained(tmp_path / "team")
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(lm.GraphError, match="does not exist"):
        lm.System.from_pretrained(folder)
    there = str(tmp_path / "there")
    again = lm.System.from_pretrained(folder, backbones={here.source: there})
    assert again.plan.graph.backbones[again.plan.graph.agent("expert").backbone].source == there


def test_a_backbone_that_has_changed_is_refused_with_the_difference(tmp_path: Path) -> None:
    here = lm.testing.tiny_backbone("llama", 16, folder=tmp_path / "here")
    graph = lm.templates.distillation(expert=here, learner=here, rounds=1, latent_steps=2)
    folder = graph.compile().load().save_pretrained(tmp_path / "team")
    config = json.loads((tmp_path / "here" / "config.json").read_text())
    config["max_position_embeddings"] = 99
    (tmp_path / "here" / "config.json").write_text(json.dumps(config))
    with pytest.raises(lm.WeightsError, match=r"LM501 .*changed since") as caught:
        lm.System.from_pretrained(folder)
    assert "info.max_positions 4096 -> 99" in str(caught.value)
    taken = lm.System.from_pretrained(folder, backbones={"expert": here, "learner": here})
    assert next(iter(taken.plan.backbones.values())).info.max_positions == 99


# --- crashes while writing --------------------------------------------------------------------


def stop_at(event: int, system: lm.System, folder: Path, monkeypatch: Any) -> bool:
    """Save, but raise at the n-th change of a folder; False when there are fewer."""
    seen = 0

    def counted(plain: Callable[..., Any]) -> Callable[..., Any]:
        def do(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == event:
                raise KeyboardInterrupt
            return plain(*arguments, **options)

        return do

    with monkeypatch.context() as patch:
        for name in ("replace", "rename", "unlink", "remove", "rmdir", "mkdir"):
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            system.save_pretrained(folder)
        except KeyboardInterrupt:
            return True
    return False


def test_a_save_that_stops_at_any_change_of_a_folder_leaves_a_whole_team(
    system: lm.System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = lm.System.load(of_template("distillation", "llama").compile(), reuse=system, seed=8)
    new.history = [TrainingRecord("outer", {}, [], {"steps": 1})]
    found = set()
    for event in range(1, 200, 4):
        folder = tmp_path / str(event)
        system.save_pretrained(folder)
        (folder / "notes.txt").write_text("mine")
        if not stop_at(event, new, folder, monkeypatch):
            break
        team = load(folder, system)
        was = next(s for s in (system, new) if s.plan == team.plan)
        assert same_weights(team, was) and team.history == was.history
        found.add("old" if was is system else "new")
        assert same_weights(load(new.save_pretrained(folder), system), new)
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        assert (folder / "notes.txt").read_text() == "mine"
    else:
        raise AssertionError("it never came to its end")
    assert found == {"old", "new"} and event > 20


def outcome_of(program: str) -> tuple[dict[str, Any], str]:
    """What a benchmark prints as JSON on its small size, and what it says beside."""
    command = [sys.executable, str(ROOT / "benchmarks" / program), "--tiny", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_save_that_is_killed_leaves_a_whole_team() -> None:
    """The program has 50 trials without `--tiny`."""
    (row,) = outcome_of("save_crash.py")[0]["rows"]
    assert row["trials"] == 5 and set(row["outcomes"]) <= {"old", "new"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_writers_and_a_reader_work_at_once() -> None:
    """The program has 200 cycles without `--tiny`."""
    found, said = outcome_of("save_together.py")
    assert [(row["who"], row["fine"], row["failed"]) for row in found["rows"]] == [
        ("first writer", 20, 0),
        ("reader", 20, 0),
        ("second writer", 20, 0),
    ]
    assert found["left"] == [] and "Traceback" not in said


def test_a_reader_sees_a_team_of_one_moment(
    system: lm.System, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer comes between the manifest and the links: the reader takes the new team."""
    other = lm.System.load(system.plan, reuse=system, seed=8)
    read, changes = load_module.read_links, [other, system, other]

    def changed(*given: Any) -> Any:
        if changes:
            changes.pop().save_pretrained(saved)
        return read(*given)

    monkeypatch.setattr(load_module, "read_links", changed)
    assert same_weights(load(saved, system), other)
    assert changes == []


def test_a_team_that_never_holds_still_is_an_error(
    system: lm.System, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the reader may not keep writers away, it gives up after a few times."""
    read = load_module.read_links

    def changed(*given: Any) -> Any:
        (saved / "latentmas.json").touch()
        return read(*given)

    monkeypatch.setattr(load_module, "read_links", changed)
    with pytest.raises(lm.WeightsError, match=r"LM502 .* changed during each of 6 attempts"):
        load(saved, system)


def test_a_writer_waits_for_another_one_and_says_when_it_gives_up(saved: Path) -> None:
    with _lock.locked(saved):
        waiting = pytest.raises(lm.LatentMASError, match=r"still writing to .*team'; wait")
        with waiting, _lock.locked(saved, patience=0.02):
            raise AssertionError("two writers at once")
    with _lock.locked(saved, patience=0):
        assert (saved / _lock.LOCK).is_file()
    assert not (saved / _lock.LOCK).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_a_lock_whose_holder_was_killed_holds_nobody_up(system: lm.System, saved: Path) -> None:
    program = "import sys; from pathlib import Path; from latentmas.io.storage import lock\n"
    program += "with lock.locked(Path(sys.argv[1])): print('held', flush=True), input()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(saved)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGKILL)
    assert (saved / _lock.LOCK).is_file()
    system.save_pretrained(saved)
    assert not [path for path in saved.iterdir() if path.name.startswith(".")]


def test_a_file_system_without_locks_is_warned_of(
    system: lm.System,
    saved: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def unable(_: int) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_lock, "_try", unable)
    system.save_pretrained(saved)
    assert "has no locks (No locks available); save a team from one process" in caplog.text
    assert same_weights(load(saved, system), system)
    assert not [path for path in saved.iterdir() if path.name.startswith(".")]


def test_a_link_in_the_locks_place_is_not_followed(
    system: lm.System, saved: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("keep")
    (saved / _lock.LOCK).symlink_to(tmp_path / "mine")
    system.save_pretrained(saved)
    assert (tmp_path / "mine").read_text() == "keep"


def test_what_dead_writers_left_is_swept_and_what_live_ones_write_is_not(
    system: lm.System, saved: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as live:
        dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
        for process in (live.pid, int(dead.stdout)):
            (saved / f"{_folder.WRITING}{process}-x").mkdir()
        system.save_pretrained(saved)
        left = [path.name for path in saved.iterdir() if path.name.startswith(".")]
        live.send_signal(signal.SIGKILL)
    assert left == [f"{_folder.WRITING}{live.pid}-x"]


def test_a_change_that_leads_out_of_the_folder_is_not_followed(
    system: lm.System, saved: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep.jinja").write_text("keep")
    for name in ("prompts", "training"):
        if (saved / name).exists():
            (saved / name).rename(tmp_path / f"old-{name}")
        (saved / name).symlink_to(outside)
    (saved / _folder.COMMIT).symlink_to(outside)
    with pytest.raises(lm.WeightsError):
        load(saved, system)
    save_system(system, saved)
    assert contents(outside) == {"keep.jinja": b"keep"}
    assert load(saved, system).plan == system.plan
    assert not (saved / "prompts").is_symlink() and not (saved / _folder.COMMIT).exists()
