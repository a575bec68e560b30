"""Looking at saved teams without loading them: what is told, what is found wrong, what differs."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.safe_data.files import inside
from tests.hostile.base import Base
from tests.hub import hub
from tests.teams import sequential

LINKS = "links.safetensors"
OUTER = "outer.planner->solver.plan"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def team(base: Base, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base.team, tmp_path / "team"))


def rewrite(folder: Path, change: Any) -> None:
    """Change the weights, and leave what the manifest says of the file behind."""
    raw = (folder / LINKS).read_bytes()
    metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]).get("__metadata__")
    state = load(raw)
    change(state)
    (folder / LINKS).write_bytes(save(state, metadata))


def told(folder: Path, change: Any) -> None:
    data = json.loads((folder / "latentmas.json").read_text())
    change(data)
    (folder / "latentmas.json").write_text(json.dumps(data))


def call(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.stdout


# --- inspect ------------------------------------------------------------------------------------


def test_it_tells_links_and_base_models(base: Base, team: Path) -> None:
    report, plan = lm.inspect_team(team), base.system.plan
    assert (report.name, report.format, report.digest) == ("pair", 1, plan.digest)
    assert [link.id for link in report.links] == base.system.link_ids()
    assert report.parameters == plan.n_parameters
    assert report.problems == () and report.trainings == ()
    for link in report.links:
        state = base.system.link(link.id).state_dict().values()
        norm = math.sqrt(sum(float(t.double().square().sum()) for t in state))
        assert link.norm == pytest.approx(norm, rel=1e-12)
        planned = plan.link(link.id)
        assert (link.kind, link.in_dim, link.out_dim) == (planned.kind, 16, 16)
        assert (link.parameters, link.dtype) == (planned.n_parameters, "F32")
        assert link.bytes == 4 * link.parameters and link.finite
    (model,) = report.backbones
    assert model.source == str(base.root / "tiny") and model.width == 16
    assert model.agents == ("planner", "solver")


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.bfloat16, "BF16"), (torch.float16, "F16"), (torch.float64, "F64")],
)
def test_norms_are_right_in_every_type(
    base: Base, team: Path, dtype: torch.dtype, name: str
) -> None:
    rewrite(team, lambda s: s.update({key: t.to(dtype) for key, t in s.items()}))
    told(team, lambda d: d.update(weights=None))
    report = lm.inspect_team(team)
    for link in report.links:
        state = base.system.link(link.id).state_dict().values()
        norm = math.sqrt(sum(float(t.to(dtype).double().square().sum()) for t in state))
        assert link.norm == pytest.approx(norm, rel=1e-9)
    assert report.problems == ()
    assert {link.dtype for link in report.links} == {name}


def test_it_tells_what_a_team_was_trained_from(base: Base) -> None:
    report = lm.inspect_team(base.checkpoint)
    (training,) = report.trainings
    assert (training["loop"], training["steps"], training["rows"]) == ("outer", 1, 4)
    assert len(training["data_digest"]) == 64
    assert f"outer  1 steps  seed {training['seed']}  4 rows" in str(report)


DAMAGE = {
    "not a number": (
        lambda s: s[f"{OUTER}.proj1.bias"].fill_(float("nan")),
        [f"link {OUTER}: holds values that are not finite"],
    ),
    "infinite": (
        lambda s: s[f"{OUTER}.proj1.bias"].fill_(float("inf")),
        [f"link {OUTER}: holds values that are not finite"],
    ),
    "missing": (
        lambda s: s.pop(f"{OUTER}.proj1.bias"),
        [f"link {OUTER}: 1,376 weights in the file, 1,408 in the manifest"],
    ),
    "more": (lambda s: s.update(more=torch.ones(2)), ["more: does not belong to a link"]),
    "changed": (lambda s: s[f"{OUTER}.proj1.bias"].fill_(3.0), []),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_it_finds_what_is_wrong(team: Path, name: str) -> None:
    change, problems = DAMAGE[name]
    rewrite(team, change)
    assert list(lm.inspect_team(team).problems) == [
        *problems,
        f"{LINKS}: its SHA-256 differs from the one in latentmas.json",
    ]
    with pytest.raises(lm.WeightsError):
        lm.System.from_pretrained(team)


def test_the_command_prints_tables_or_json(team: Path) -> None:
    code, text = call("inspect", team)
    assert code == 0
    assert f"  {OUTER}" in text and text.rstrip().endswith("sound")
    code, text = call("inspect", team, "--json")
    facts = json.loads(text)
    assert code == 0 and facts["parameters"] == lm.inspect_team(team).parameters
    rewrite(team, DAMAGE["infinite"][0])
    code, text = call("inspect", team)
    assert code == 1 and "not finite" in text
    assert json.loads(call("inspect", team, "--json")[1])["links"][2]["norm"] is None
    assert call("inspect", team / "nowhere")[0] == 1


def test_looking_takes_no_torch(team: Path) -> None:
    code = f"""
import sys
from latentmas.cli.app import app
try:
    app(["inspect", {str(team)!r}])
except SystemExit as end:
    assert end.code == 0, end.code
print(sorted({{"torch", "transformers", "networkx", "huggingface_hub"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_team_from_the_hub(team: Path, tmp_path: Path) -> None:
    script = "import sys, latentmas as lm; print(lm.inspect_team('me/pair').revision)"
    script += "; assert 'torch' not in sys.modules"
    with hub({"me/pair": team}) as server:
        environment = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PATH": ""}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment
        )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 40


def test_a_snapshot_of_the_hub_is_made_of_links(team: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--me--pair"
    blob, snapshot = cache / "blobs" / "b", cache / "snapshots" / ("a" * 40)
    blob.parent.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    shutil.move(team / LINKS, blob)
    (snapshot / LINKS).symlink_to(blob)
    assert inside(snapshot, snapshot / LINKS)
    (tmp_path / "elsewhere").write_text("x")
    (snapshot / "x").symlink_to(tmp_path / "elsewhere")
    assert not inside(snapshot, snapshot / "x")


# --- diff ---------------------------------------------------------------------------------------


def test_a_team_equals_itself(base: Base, team: Path) -> None:
    found = lm.diff_teams(base.team, team)
    assert found.equal and found.plan == ()
    assert {link.state for link in found.links} == {"same"}
    assert str(found) == "equal: the same plan, 4 links"
    assert call("diff", base.team, team) == (0, "equal: the same plan, 4 links\n")


def test_a_changed_link_tells_how_much(base: Base, tmp_path: Path) -> None:
    other = base.graph.compile().load()
    other.load_state_dict(base.system.state_dict())
    with torch.no_grad():
        for weight in other.link(OUTER).parameters():
            weight.mul_(1.25)
    found = lm.diff_teams(base.team, other.save_pretrained(tmp_path / "other"))
    states = {link.id: link for link in found.links}
    assert not found.equal and found.plan == ()
    assert states.pop(OUTER).relative == pytest.approx(0.25, rel=1e-6)
    assert {link.state for link in states.values()} == {"same"}
    assert f"changed    {OUTER}  by 0.25 of its norm" in str(found)


def test_teams_of_other_plans(base: Base, tmp_path: Path) -> None:
    other = sequential(rounds=3).compile().load().save_pretrained(tmp_path / "other")
    found = lm.diff_teams(base.team, other)
    assert "rounds: 2 -> 3" in found.plan and "name: pair -> sequential" in found.plan
    states = {link.id: link.state for link in found.links}
    assert states[OUTER] == "only in A"
    assert states["outer.critic->solver.plan"] == "only in B"
    assert states["inner.planner"] == "changed"
    code, text = call("diff", base.team, other)
    assert code == 1 and "plan" in text and f"only in A  {OUTER}" in text
    code, text = call("diff", base.team, other, "--json")
    assert code == 1 and json.loads(text)["equal"] is False
    assert call("diff", base.team, tmp_path)[0] == 1


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda s: s[f"{OUTER}.proj1.bias"].fill_(float("nan")), "not finite"),
        (
            lambda s: s.update({f"{OUTER}.proj1.bias": torch.ones(3)}),
            "names or shapes of the weights differ",
        ),
    ],
)
def test_links_that_no_number_compares(base: Base, team: Path, change: Any, detail: str) -> None:
    rewrite(team, change)
    (link,) = (link for link in lm.diff_teams(base.team, team).links if link.state != "same")
    assert (link.state, link.relative) == ("changed", None) and detail in link.detail


def test_nothing_is_read_but_the_folders(base: Base, team: Path) -> None:
    """Not even the backbones' configurations, which may be code or elsewhere."""
    shutil.move(base.root / "tiny", base.root / "gone")
    try:
        assert lm.diff_teams(base.team, team).equal
        assert lm.inspect_team(team).problems == ()
    finally:
        shutil.move(base.root / "gone", base.root / "tiny")
