"""Some links by themselves: files of links, warm starts, and what the report says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import latentmas as lm
from latentmas.io._format import HEADER
from tests.teams import sequential, tiny

PLAN_EDGE, CRITIC_EDGE = "outer.planner->critic.plan", "outer.critic->solver.plan"
FEEDBACK = "outer.solver->planner.feedback"
WEIGHT = "inner.planner.proj1.weight"
INNER = ["inner.planner", "inner.critic", "inner.solver"]


@pytest.fixture(scope="module")
def source() -> lm.System:
    return sequential().compile().load(seed=1)


@pytest.fixture
def system(source: lm.System) -> lm.System:
    return lm.System.load(source.plan, reuse=source, seed=2)


def taken_over(system: lm.System, source: lm.System) -> set[str]:
    """Ids of links with equal weights."""
    return {
        id
        for id in system.link_ids()
        if id in source.link_ids()
        and all(
            torch.equal(tensor, source.link(id).state_dict()[name])
            for name, tensor in system.link(id).state_dict().items()
        )
    }


@pytest.mark.parametrize(
    ("only", "ids"),
    [
        ("planner", ["inner.planner"]),
        ("planner->critic", [PLAN_EDGE]),
        ("critic->solver.plan", [CRITIC_EDGE]),
        (FEEDBACK, [FEEDBACK]),
        ("inner", INNER),
        (
            ["solver->planner", "critic", "outer"],
            ["inner.critic", PLAN_EDGE, CRITIC_EDGE, FEEDBACK],
        ),
        ("all", [*INNER, PLAN_EDGE, CRITIC_EDGE, FEEDBACK]),
    ],
)
def test_links_go_to_a_file_and_come_back(
    only: Any, ids: list[str], source: lm.System, system: lm.System, tmp_path: Path
) -> None:
    path = source.save_links(tmp_path / "some" / "links.safetensors", only=only)
    names = {name.rpartition(".")[0] for name in load_file(path)}
    assert {id for id in ids for name in names if name.startswith(id)} == set(ids)
    report = system.load_links(path)
    assert list(report.taken) == ids == list(report.taken.values())
    assert set(report.left) == set(system.link_ids()) - set(ids) and report.unused == ()
    assert taken_over(system, source) == set(ids)
    assert [p.name for p in path.parent.iterdir()] == ["links.safetensors"]


def test_a_file_says_by_itself_what_it_holds(source: lm.System, tmp_path: Path) -> None:
    path = source.save_links(tmp_path / "x.safetensors", only="planner")
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()[HEADER])
    assert told["format"] == "latentmas-links" and told["digest"] == source.plan.digest
    assert [link["id"] for link in told["links"]] == ["inner.planner"]
    assert told["links"][0]["in_dim"] == 16 and told["graph"]["name"] == "sequential"
    other = source.save_links(tmp_path / "y.safetensors", only="planner")
    assert other.read_bytes() == path.read_bytes()


def test_only_chooses_what_is_loaded(source: lm.System, system: lm.System, tmp_path: Path) -> None:
    path = source.save_links(tmp_path / "x.safetensors")
    report = system.load_links(path, only=["critic", "planner->critic"])
    assert set(report.taken) == {"inner.critic", PLAN_EDGE} == taken_over(system, source)
    assert set(report.unused) == set(source.link_ids()) - set(report.taken)
    assert report.left == {}


def test_links_come_from_a_folder_or_a_live_system(
    source: lm.System, system: lm.System, tmp_path: Path
) -> None:
    folder = source.save_pretrained(tmp_path / "team")
    assert set(system.load_links(folder, only="inner").taken) == set(INNER)
    assert taken_over(system, source) == set(INNER)
    assert len(system.load_links(source).taken) == 6
    assert taken_over(system, source) == set(system.link_ids())
    with torch.no_grad():
        source.link("inner.critic").proj1.weight.add_(1.0)
    assert "inner.critic" not in taken_over(system, source)


def other_graph() -> lm.Graph:
    """Shares some names and widths with the source, and differs in each way that matters."""
    small, wide = tiny("llama", 16), tiny("llama", 32, seed=1)
    graph = lm.Graph("other", inputs=["question"], rounds=2, latent_steps=2)
    graph.add_agent("planner", small, prompt="{{ question }}", inner="recursive")
    graph.add_agent("critic", wide, prompt="{{ plan }}", inner={"kind": "linear"})
    prompt = "{{ plan }}{% if feedback %}{{ feedback }}{% endif %}"
    graph.add_agent("solver", wide, prompt=prompt, inner="recursive")
    graph.connect("planner", "critic.plan", link="recursive", expansion=3)
    graph.connect("critic", "solver.plan", link="recursive")
    graph.feedback("solver", "solver.feedback", link="identity")
    return graph.output("solver")


def test_a_warm_start_takes_what_matches_and_says_why_not(source: lm.System) -> None:
    other = lm.System.load(other_graph().compile(), reuse=source, seed=4)
    before = {name: tensor.clone() for name, tensor in other.link_state().items()}
    report = other.load_links(source)
    assert report.taken == {"inner.planner": "inner.planner"}
    assert report.left["inner.critic"] == "inner.critic is of kind recursive, here linear"
    assert report.left["inner.solver"] == "inner.solver has widths 16 → 16, here 32 → 32"
    assert "has options" in report.left[PLAN_EDGE] and "'expansion': 3" in report.left[PLAN_EDGE]
    assert report.left[CRITIC_EDGE] == f"{CRITIC_EDGE} has widths 32 → 16, here 32 → 32"
    assert report.left["outer.solver->solver.feedback"] == "kind identity has no weights"
    assert set(report.unused) == set(source.link_ids()) - {"inner.planner"}
    for name, tensor in other.link_state().items():
        mine = source.link_state() if name.startswith("inner.planner.") else before
        assert torch.equal(tensor, mine[name]), name
    assert not torch.equal(before[WEIGHT], source.link_state()[WEIGHT])
    lines = str(report).splitlines()
    assert lines[0] == "took 1 of 6 links" and "taken   inner.planner" in lines
    assert json.loads(json.dumps(report.to_dict()))["taken"] == report.taken


def test_links_can_be_taken_under_another_name(source: lm.System) -> None:
    other = lm.System.load(other_graph().compile(), reuse=source, seed=4)
    rename = {"solver": "critic", "inner.planner": "inner.solver"}
    report = other.load_links(source, only=["planner", "solver"], rename=rename)
    assert report.taken == {"inner.planner": "inner.solver", "inner.solver": "inner.critic"}
    for here, there in report.taken.items():
        ours, theirs = other.link(here).state_dict(), source.link(there).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "taken   inner.solver  from inner.critic" in str(report)


def test_strict_takes_all_or_nothing(source: lm.System) -> None:
    other = lm.System.load(other_graph().compile(), reuse=source, seed=4)
    before = {name: tensor.clone() for name, tensor in other.link_state().items()}
    with pytest.raises(lm.WeightsError, match=r"LM501 some links cannot be loaded") as caught:
        other.load_links(source, strict=True)
    assert "inner.critic is of kind recursive" in str(caught.value)
    assert all(torch.equal(t, before[name]) for name, t in other.link_state().items())
    assert other.load_links(source, only="planner", strict=True).left == {}


@pytest.mark.parametrize("options", [{"only": "plannr"}, {"rename": {"plannr": "planner"}}])
def test_unknown_names_are_refused(options: Any, source: lm.System, system: lm.System) -> None:
    with pytest.raises(lm.UnknownNameError, match="did you mean 'planner'"):
        system.load_links(source, **options)


def test_a_rename_of_one_to_many_is_refused(source: lm.System, system: lm.System) -> None:
    with pytest.raises(lm.UnknownNameError, match=r"'planner' names 1 here"):
        system.load_links(source, rename={"planner": "inner"})


def test_the_file_name_must_say_what_it_is(source: lm.System, tmp_path: Path) -> None:
    with pytest.raises(lm.DataError, match=r"ends in \.safetensors"):
        source.save_links(tmp_path / "links.pt")


def spoil(path: Path, change: Any, header: dict[str, str] | None = None) -> None:
    weights = load_file(path)
    with safe_open(path, "pt") as file:
        kept = file.metadata()
    change(weights)
    save_file(weights, path, metadata=kept if header is None else header)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("inner.planner.proj1.bias"), "missing: inner.planner.proj1.bias"),
        (lambda w: w["inner.planner.proj1.bias"].fill_(float("nan")), "not finite"),
        (lambda w: w.update({"inner.planner.proj1.bias": torch.ones(3)}), "shape (3,)"),
    ],
)
def test_damaged_weights_change_nothing(
    change: Any, message: str, source: lm.System, system: lm.System, tmp_path: Path
) -> None:
    path = source.save_links(tmp_path / "x.safetensors", only="inner")
    spoil(path, change)
    before = {name: tensor.clone() for name, tensor in system.link_state().items()}
    with pytest.raises(lm.WeightsError, match="LM503") as caught:
        system.load_links(path)
    assert message in str(caught.value)
    assert all(torch.equal(t, before[name]) for name, t in system.link_state().items())
    assert set(system.load_links(path, only="critic").taken) == {"inner.critic"}


@pytest.mark.parametrize(
    "header",
    [
        {},
        {HEADER: "{"},
        {HEADER: "[1]"},
        {HEADER: '{"format": "latentmas-links"}'},
        {HEADER: '{"format": "latentmas-links", "links": [{"id": 3}]}'},
        {HEADER: "[" * 9999},
    ],
    ids=range(6),
)
def test_a_file_that_does_not_say_what_it_holds_is_refused(
    header: dict[str, str], source: lm.System, system: lm.System, tmp_path: Path
) -> None:
    path = source.save_links(tmp_path / "x.safetensors", only="planner")
    spoil(path, lambda weights: None, header)
    with pytest.raises(lm.WeightsError, match=r"LM50[23]"):
        system.load_links(path)


def test_a_file_of_a_newer_format_warns(
    source: lm.System, system: lm.System, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = source.save_links(tmp_path / "x.safetensors", only="planner")
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()[HEADER])
    told["version"], told["links"][0]["rank"] = 2, 4
    spoil(path, lambda weights: None, {HEADER: json.dumps(told)})
    assert set(system.load_links(path).taken) == {"inner.planner"}
    assert "links.rank" in caplog.text and "pip install -U" in caplog.text


def test_no_file_and_no_team(system: lm.System, tmp_path: Path) -> None:
    for place in (tmp_path / "x.safetensors", tmp_path / "team"):
        with pytest.raises(lm.WeightsError, match="LM502"):
            system.load_links(place)


def test_a_shared_link_is_found_by_each_of_its_users(tmp_path: Path) -> None:
    small = tiny("llama", 16)
    graph = lm.Graph("pair", inputs=["question"], rounds=1, latent_steps=2)
    same = {"kind": "linear", "share": "thinking"}
    graph.add_agent("one", small, prompt="{{ question }}", inner=same)
    graph.add_agent("two", small, prompt="{{ one }}", inner=same)
    graph.add_agent("three", small, prompt="{{ two }}")
    graph.connect("one", "two")
    graph.connect("two", "three")
    system = graph.output("three").compile().load()
    path = system.save_links(tmp_path / "x.safetensors", only="two")
    assert {name.rpartition(".")[0] for name in load_file(path)} == {"shared.thinking.proj1"}
    assert list(system.load_links(path, only="one").taken) == ["shared.thinking"]
