"""Published releases: what is read, what is shared, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.interop._styles import STYLES
from tests.hub import COMMIT, hub

RELEASES = Path(__file__).parent / "published" / "releases"
CHAIN = "sequential_light"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A copy of a release that a test may damage."""
    folder = tmp_path / "release"
    shutil.copytree(RELEASES / CHAIN, folder)
    return folder


def state_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


# --- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_a_release_is_a_template_with_published_links(style: str) -> None:
    system = lm.load_release(style, RELEASES / style, latent_steps=2)
    assert {link.kind for link in system.plan.links} == {"recursive"}
    assert all(link.norm == "none" for link in system.plan.links)
    assert set(STYLES[style].roles) == {agent.name for agent in system.plan.graph.agents}
    assert system.run(["What is 3 + 4?"], max_new_tokens=2).token_ids


def test_the_task_chooses_links_and_prompts() -> None:
    by_task = {
        task: lm.load_release(CHAIN, RELEASES / CHAIN, task=task)
        for task in ("math", "choice", "search", "code")
    }
    weights = {task: system.link_state() for task, system in by_task.items()}
    name = "inner.planner.proj1.weight"
    assert torch.equal(weights["math"][name], weights["choice"][name])
    assert torch.equal(weights["math"][name], weights["search"][name])
    assert not torch.equal(weights["math"][name], weights["code"][name])
    path = RELEASES / CHAIN / "planner" / "adapter(code).pt"
    assert torch.equal(weights["code"][name], state_of(path)["proj1.weight"])
    prompts = {system.plan.graph.agent("solver").prompt for system in by_task.values()}
    assert len(prompts) == 4


def test_one_round_needs_no_feedback_link(release: Path) -> None:
    (release / "outer" / "Solver-Planner-Outerlink(math).pt").unlink()
    system = lm.load_release(CHAIN, release, rounds=1)
    assert [link.id for link in system.plan.links if "feedback" in link.id] == []


def test_equal_models_are_loaded_once(tmp_path: Path) -> None:
    folder = tmp_path / "deliberation"
    shutil.copytree(RELEASES / "deliberation", folder)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        shutil.copyfile(folder / "reflector" / name, folder / "toolcaller" / name)
    system = lm.load_release("deliberation", folder)
    assert system.backbone_of("reflector") is system.backbone_of("toolcaller")
    assert len(system.plan.backbones) == 1
    two = lm.load_release("deliberation", RELEASES / "deliberation")
    assert two.backbone_of("reflector") is not two.backbone_of("toolcaller")


def test_a_prompt_pack_replaces_prompts(tmp_path: Path) -> None:
    pack = tmp_path / "pack.yaml"
    pack.write_text("solver:\n  prompt: 'Mine: {{ plan }} {{ question }}'\n")
    system = lm.load_release(CHAIN, RELEASES / CHAIN, prompts=pack)
    assert system.plan.graph.agent("solver").prompt == "Mine: {{ plan }} {{ question }}"
    with pytest.raises(lm.UnknownNameError, match="did you mean 'solver'"):
        lm.load_release(CHAIN, RELEASES / CHAIN, prompts={"sover": "x"})


def test_a_pack_with_feedback_serves_one_round_too() -> None:
    prompt = "{% if feedback %}Before: {{ feedback }}{% else %}First.{% endif %} {{ question }}"
    prompts = {"planner": {"prompt": prompt}}
    system = lm.load_release(CHAIN, RELEASES / CHAIN, prompts=prompts, rounds=1, latent_steps=2)
    plain = {"planner": {"prompt": "First. {{ question }}"}}
    other = lm.load_release(CHAIN, RELEASES / CHAIN, prompts=plain, rounds=1, latent_steps=2)
    question = ["What is 3 + 4?"]
    found = [s.run(question, record=("states",), max_new_tokens=1) for s in (system, other)]
    key = "round1.planner"
    assert torch.equal(found[0].states[key], found[1].states[key])


def test_files_without_a_manifest_are_found_by_name(release: Path) -> None:
    manifest = release / "planner" / "innerlink_config.json"
    manifest.unlink()
    named = lm.load_release(CHAIN, release).link_state()
    (release / "planner" / "adapter(math).pt").rename(release / "planner" / "adapter.pt")
    (release / "planner" / "adapter_config(math).json").unlink()
    plain = lm.load_release(CHAIN, release).link_state()
    assert all(torch.equal(named[key], plain[key]) for key in named)


def test_it_saves_and_loads_as_any_team(tmp_path: Path) -> None:
    system = lm.load_release(CHAIN, RELEASES / CHAIN, latent_steps=2)
    again = lm.System.from_pretrained(system.save_pretrained(tmp_path / "team"))
    assert again.plan == system.plan
    question = ["What is 3 + 4?"]
    assert (
        again.run(question, max_new_tokens=4).texts == system.run(question, max_new_tokens=4).texts
    )


def test_the_command_writes_a_team(tmp_path: Path) -> None:
    out = tmp_path / "team"
    arguments = ["import-release", CHAIN, str(out), "--source", str(RELEASES / CHAIN)]
    done = CliRunner().invoke(app, [*arguments, "--latent-steps", "2", "--task", "code"])
    assert done.exit_code == 0, done.output
    assert lm.System.from_pretrained(out).plan.graph.latent_steps == 2
    assert CliRunner().invoke(app, [*arguments, "--dtype", "float8"]).exit_code == 2
    assert CliRunner().invoke(app, ["import-release", "chain", str(out)]).exit_code == 1


def test_a_link_config_beside_the_model_is_not_taken_for_peft(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("transformers.models.auto.auto_factory", "transformers.integrations.peft"):
        monkeypatch.setattr(f"{module}.is_peft_available", lambda: True)
    monkeypatch.setattr("latentmas.backbones.loading.load.is_peft_available", lambda: True)
    (release / "planner" / "adapter_config.json").write_text('{"adapter_type": "ln_res_adapter"}')
    assert lm.load_release(CHAIN, release).run(["?"], max_new_tokens=1).token_ids


# --- what is refused ----------------------------------------------------------------------------

PLANNER = "planner/adapter(math).pt"
OUTER = "outer/Planner-Critic-Outerlink(math).pt"


def rewrite(path: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def do(release: Path) -> None:
        state = state_of(release / path)
        torch.save(change(state) or state, release / path)

    return do


def manifest(path: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def do(release: Path) -> None:
        data = json.loads((release / path).read_text())
        change(data)
        (release / path).write_text(json.dumps(data))

    return do


def link_name(name: Any) -> Callable[[Path], None]:
    return manifest(
        "outer/outerlink_config.json",
        lambda d: d["tasks"]["math"]["adapters"][0].update(filename=name),
    )


def del_(state: dict[str, Any], name: str) -> None:
    del state[name]


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def evil(release: Path) -> None:
    torch.save({"proj1.weight": Evil()}, release / PLANNER)


def plain_pickle(release: Path) -> None:
    (release / PLANNER).write_bytes(pickle.dumps({"proj1.weight": Evil()}))


def bomb(release: Path) -> None:
    with zipfile.ZipFile(release / PLANNER, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 64 * 2**20)


def symlink(release: Path) -> None:
    outside = release.parent / "outside.pt"
    shutil.move(release / PLANNER, outside)
    (release / PLANNER).symlink_to(outside)


def role_symlink(release: Path) -> None:
    shutil.move(release / "planner", release.parent / "elsewhere")
    (release / "planner").symlink_to(release.parent / "elsewhere")


def huge(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"proj1.weight": torch.empty(10**6, 10**6, device="meta")}


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "code in a pickle": (evil, "LM502.*cannot be read safely"),
    "code in an old pickle": (plain_pickle, "LM502"),
    "not a pickle": (lambda r: (r / PLANNER).write_text("hello") and None, "LM502"),
    "an empty file": (lambda r: (r / PLANNER).write_bytes(b"") and None, "LM502"),
    "cut short": (lambda r: os.truncate(r / PLANNER, 3000), "LM502"),
    "an archive that unpacks to much more": (bomb, "LM503.*unpacks to 67,108,864"),
    "a list": (rewrite(PLANNER, lambda s: [1, 2]), "LM503.*list"),
    "a missing tensor": (rewrite(PLANNER, lambda s: del_(s, "proj1.bias")), "lacks proj1"),
    "an unexpected tensor": (rewrite(PLANNER, lambda s: s.update(x=torch.ones(1))), "unexpected x"),
    "a wrong shape": (
        rewrite(PLANNER, lambda s: s.update({"proj1.bias": torch.ones(7)})),
        r"proj1.bias has shape \(7,\), expected \(48,\)",
    ),
    "not a number": (
        rewrite(OUTER, lambda s: s.update({"proj1.bias": s["proj1.bias"] * float("nan")})),
        "proj1.bias holds values that are not finite",
    ),
    "integers": (
        rewrite(PLANNER, lambda s: s.update({"proj1.bias": torch.ones(48).int()})),
        "must be floating-point",
    ),
    "a sparse tensor": (
        rewrite(PLANNER, lambda s: s.update({"proj1.weight": torch.eye(48).to_sparse()})),
        "a dense one is needed",
    ),
    "a huge meta tensor": (rewrite(PLANNER, huge), "meta tensor"),
    "text in place of a tensor": (
        rewrite(PLANNER, lambda s: s.update({"proj1.bias": "x"})),
        "is a str, not a tensor",
    ),
    "a link out of the folder": (symlink, "points outside the release"),
    "a role out of the folder": (role_symlink, "points outside"),
    "traversal in a manifest": (link_name("../planner/adapter(math).pt"), "not a plain file name"),
    "an absolute path in a manifest": (link_name("/etc/passwd"), "not a plain file name"),
    "a number as a file name": (link_name(3), "not a plain file name"),
    "a file that is not there": (link_name("other.pt"), "file 'other.pt' does not exist"),
    "an unknown link type": (
        manifest(
            "outer/outerlink_config.json",
            lambda d: d["tasks"]["math"]["adapters"][0].update(adapter_type="kv"),
        ),
        "link type 'kv'",
    ),
    "an outer link that is not listed": (
        manifest("outer/outerlink_config.json", lambda d: d["tasks"]["math"].update(adapters=[])),
        "link 'outer_12' is not listed; links: none",
    ),
    "a task that was not published": (
        manifest("outer/outerlink_config.json", lambda d: d["tasks"].pop("math")),
        "has no task 'math', only: code",
    ),
    "a manifest of another form": (
        manifest("outer/outerlink_config.json", lambda d: d.update(tasks=[1])),
        "no task 'math'",
    ),
    "no manifest": (
        lambda r: (r / "outer" / "outerlink_config.json").unlink(),
        "has no outerlink_config.json",
    ),
    "a manifest that is no JSON": (
        lambda r: (r / "outer" / "outerlink_config.json").write_text("{") and None,
        "is not JSON",
    ),
    "a manifest of brackets": (
        lambda r: (r / "outer" / "outerlink_config.json").write_text("[" * 10**5) and None,
        "is not JSON",
    ),
    "a role that is not there": (lambda r: shutil.rmtree(r / "critic"), "has no folder 'critic'"),
    "a model without weights": (
        lambda r: (r / "critic" / "model.safetensors").unlink(),
        "cannot load backbone",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_release_is_refused_with_the_reason(
    name: str, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(release.parent)
    damage, message = BAD[name]
    damage(release)
    with pytest.raises(lm.WeightsError, match=message):
        lm.load_release(CHAIN, release)
    assert not (release.parent / "pwned").exists()


def test_unknown_names_and_folders() -> None:
    with pytest.raises(lm.UnknownNameError, match="did you mean 'sequential_light'"):
        lm.load_release("sequental_light", RELEASES / CHAIN)
    with pytest.raises(lm.UnknownNameError, match="unknown task 'maths'; did you mean 'math'"):
        lm.load_release(CHAIN, RELEASES / CHAIN, task="maths")
    with pytest.raises(lm.WeightsError, match="is not a folder"):
        lm.load_release(CHAIN, RELEASES / "nowhere")


# --- from the hub -------------------------------------------------------------------------------

SCRIPT = """
import json, sys, latentmas as lm
style, rounds = sys.argv[1], int(sys.argv[2])
try:
    system = lm.load_release(style, rounds=rounds, latent_steps=2)
except lm.LatentMASError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()
print(json.dumps({
    "revisions": [b.spec.revision for b in system.plan.backbones.values()],
    "sources": [b.spec.source for b in system.plan.backbones.values()],
    "ids": system.run(["What is 3 + 4?"], max_new_tokens=3).token_ids,
}))
"""


def from_hub(url: str, home: Path, style: str, rounds: int = 2) -> dict[str, Any]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS"))}
    environment |= {"HF_ENDPOINT": url, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, style, str(rounds)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_from_the_hub_only_what_is_needed_is_fetched_at_one_commit(tmp_path: Path) -> None:
    folder = tmp_path / "deliberation"
    shutil.copytree(RELEASES / "deliberation", folder)
    for path in (folder / "reflector").iterdir():
        if not path.name.startswith("adapter"):
            shutil.copyfile(path, folder / "toolcaller" / path.name)
    (folder / "reflector" / "huge.pt").write_bytes(b"0" * 100)
    style = STYLES["deliberation"]
    repositories = {repository: folder / role for role, repository in style.roles.items()}
    repositories[style.outer] = folder / "outer"
    with hub(repositories) as server:
        found = from_hub(server.url, tmp_path / "home", "deliberation")
    assert found["sources"] == [style.roles["reflector"]]
    assert found["revisions"] == [COMMIT]
    local = lm.load_release("deliberation", folder, rounds=2, latent_steps=2)
    assert found["ids"] == local.run(["What is 3 + 4?"], max_new_tokens=3).token_ids
    second, fetched = style.roles["toolcaller"], server.downloaded()
    assert {name for name in fetched if name.startswith(second)} == {
        f"{second}/adapter.pt",
        f"{second}/adapter_config.json",
    }
    assert f"{style.roles['reflector']}/huge.pt" not in fetched
    assert not [name for name in fetched if name.startswith(style.outer) and "code" in name]


def test_a_hub_that_is_not_there_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    with hub({}) as server:
        missing = from_hub(server.url, tmp_path / "home", CHAIN)["error"]
    assert "LM502 cannot look up 'RecursiveMAS/Sequential-Light-Planner-Qwen3-1.7B'" in missing
    unreachable = from_hub("http://127.0.0.1:9", tmp_path / "home", CHAIN)["error"]
    assert "to work offline, pass the folder" in unreachable
