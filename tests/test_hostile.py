"""Every hostile input is refused by name, in time, and leaves everything as it was."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from tests.hostile import CASES, LOADERS, Base, Case
from tests.hostile.base import SOURCES, edit

SECONDS = 60.0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base(tmp_path_factory.mktemp("base"))


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("loader", [name for name in SOURCES if name != "prompt pack of a release"])
def test_the_sound_copy_is_taken(loader: str, base: Base, tmp_path: Path) -> None:
    """Guards the test below: what is refused there is refused for its damage."""
    base.load(loader, base.copy(loader, tmp_path))


def test_every_loader_has_its_cases() -> None:
    assert {case.loader for case in CASES} == set(LOADERS) == set(SOURCES)
    assert len({(case.name, case.loader) for case in CASES}) == len(CASES) >= 200


def test_only_the_user_can_allow_remote_code(base: Base, tmp_path: Path) -> None:
    """Where no code is there to be run, the request alone is judged."""
    path = base.copy("graph file (JSON)", tmp_path)
    edit(lambda d: next(iter(d["backbones"].values())).update(trust_remote_code=True))(path)
    with pytest.raises(lm.GraphError, match="LM504"):
        lm.GraphSpec.from_json(path.read_text())
    plan = lm.Graph.load(path, trust_remote_code=True).compile()
    with pytest.raises(lm.PlanError, match="LM504"):
        lm.Plan.open(plan.save(tmp_path / "plan.json"))
    assert lm.Plan.open(tmp_path / "plan.json", trust_remote_code=True) == plan
    team = plan.load().save_pretrained(tmp_path / "team")
    with pytest.raises(lm.WeightsError, match="LM504"):
        lm.System.from_pretrained(team)
    assert lm.System.from_pretrained(team, trust_remote_code=True).plan == plan
    assert lm.inspect_team(team).problems == () and lm.diff_teams(team, team).equal
    for words, code in (((), 1), (("--trust-remote-code",), 0)):
        assert CliRunner().invoke(app, [*words, "check", str(path)]).exit_code == code


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.loader}: {case.name}")
def test_it_is_refused(
    case: Case, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = base.copy(case.loader, tmp_path)
    case.spoil(path)
    live = base.learner if case.loader == "checkpoint" else base.system
    before = {name: tensor.clone() for name, tensor in live.link_state().items()}
    there, began = names(tmp_path), time.perf_counter()
    with pytest.raises(lm.LatentMASError) as caught:
        base.load(case.loader, path)
    assert time.perf_counter() - began < SECONDS
    assert re.search(case.told, str(caught.value)) or case.told in str(caught.value), caught.value
    assert {name for name in names(tmp_path) - there if "resumed" not in name} == set()
    after = live.link_state()
    assert all(torch.equal(after[name], before[name]) for name in before)
