"""A round trip over the hub, with the real client against a stand-in of its HTTP API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import latentmas as lm
from latentmas.io import push_folder
from latentmas.testing import tiny_backbone
from tests.hub import COMMIT, Hub, hub

TOKEN = "hf_" + "TestTokenOfNobody" * 2
REPOSITORY = "me/pair"
BROKEN_AT = 9000
# The client reads its endpoint when it is imported, so everything runs in a process of its own.
SCRIPT = r"""
import json, os, sys, torch
import latentmas as lm
from huggingface_hub import HfApi, constants
from latentmas.cli.app import app
from typer.testing import CliRunner
from latentmas.io import push_folder

constants.DOWNLOAD_CHUNK_SIZE = 1024  # what stays when a download breaks, else 10 MiB

name, team, work, token = sys.argv[1:5]
told = {}


def failure(do, *arguments, **options):
    try:
        do(*arguments, **options)
    except lm.LatentMASError as error:
        return str(error)
    return ""


def same(a, b):
    a, b = a.link_state(), b.link_state()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def edit(change):
    path = f"{work}/card.md"
    (there,) = [HfApi(token=token).hf_hub_download(name, "README.md", local_dir=work)]
    with open(there) as file:
        text = change(file.read())
    HfApi(token=token).upload_file(
        path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id=name,
        commit_message="edit the card",
    )


system = lm.System.from_pretrained(team)
told["refused"] = failure(system.push_to_hub, name, token="hf_" + "WrongTokenOfNobody" * 2)
first = system.push_to_hub(name, private=True, token=token)
told["first"] = first
told["files"] = sorted(HfApi(token=token).list_repo_files(name))

edit(lambda card: card.replace("---\n", "---\nlicense: mit\n", 1).replace(
    "<!-- latentmas: gen", "Read me first.\n\n<!-- latentmas: gen") + "\nThe end.\n")
with torch.no_grad():
    system.link("inner.expert").proj1.weight.add_(1.0)
second = system.push_to_hub(name, commit_message="better links", token=token)
told["second"] = second
os.environ["HF_TOKEN"] = token
pushed = CliRunner().invoke(app, ["push", team, name, "--branch", "draft", "--json"])
third = json.loads(pushed.stdout)["commit"]
del os.environ["HF_TOKEN"]
told["third"] = third
told["unchanged"] = push_folder(team, name, revision="draft", token=token)

load = lm.System.from_pretrained
old = load(team, reuse=system)
told["by_commit"] = same(load(name, revision=first, reuse=system, token=token), old)
told["latest"] = same(load(name, reuse=system, token=token), system)
told["by_branch"] = same(load(name, revision="draft", reuse=system, token=token), old)
pulled = load(name, reuse=system, token=token)
told["origin"] = [pulled.origin.source, pulled.origin.revision]
pulled.save_pretrained(f"{work}/local")
told["no_revision"] = failure(load, name, revision="nowhere", token=token)
told["no_repository"] = failure(load, "me/other", token=token)
told["no_token"] = failure(load, name, revision="main~9")
told["report"] = str(system.load_links(name, only="expert", revision=first, token=token))
facing = lm.Backbone("org/tiny")
graph = lm.templates.distillation(
    expert=facing, learner=facing, rounds=2, latent_steps=2, link="recursive", inner="recursive"
)
pinned = graph.compile().load()
pinned.save_pretrained(f"{work}/pinned")
with open(HfApi(token=token).hf_hub_download("org/tiny", "config.json")) as file:
    config = json.load(file) | {"max_position_embeddings": 64}
HfApi(token=token).upload_file(
    path_or_fileobj=json.dumps(config).encode(), path_in_repo="config.json", repo_id="org/tiny"
)
positions = lambda system: next(iter(system.plan.backbones.values())).info.max_positions
told["pinned"] = [positions(pinned), positions(load(f"{work}/pinned"))]
told["commits"] = list(load(f"{work}/pinned").commits().values())
told["current"] = positions(load(f"{work}/pinned", backbones={"org/tiny": "org/tiny"}))
told["broken"] = same(load("me/broken", reuse=system, token=token), old)
told["given_up"] = failure(load, "me/given-up", token=token)
told["again"] = same(load("me/given-up", reuse=system, token=token), old)
print(json.dumps(told))
"""


def run(server: Hub, home: Path, script: str, *arguments: object) -> tuple[dict[str, Any], str]:
    """What a script printed, with the client pointed at the stand-in, and what it logged."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS"))}
    environment |= {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    tiny = tiny_backbone("llama", 16, folder=folder / "tiny")
    graph = lm.templates.distillation(
        expert=tiny, learner=tiny, rounds=2, latent_steps=2, link="recursive", inner="recursive"
    )
    return graph.compile().load().save_pretrained(folder / "team")


@pytest.fixture(scope="module")
def trip(team: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Hub, dict[str, Any], str]:
    """The hub after everything that `SCRIPT` does, what it told, and what it logged."""
    work = tmp_path_factory.mktemp("work")
    repositories = {"me/broken": team, "me/given-up": team, "org/tiny": team.parent / "tiny"}
    with hub(repositories) as server:
        server.token = TOKEN
        server.break_after["me/broken/links.safetensors"] = BROKEN_AT
        server.refuse = {"me/given-up/links.safetensors"}
        told, log = run(server, work / "home", SCRIPT, REPOSITORY, team, work, TOKEN)
    told["local"] = lm.System.from_pretrained(work / "local").plan.graph.name
    return server, told, log


def test_push_and_list(trip: tuple[Hub, dict[str, Any], str]) -> None:
    server, told, _ = trip
    repository = server.repositories[REPOSITORY]
    assert repository.private
    assert repository.messages == [
        "Upload team distillation",
        "edit the card",
        "better links",
        "Upload team distillation",
    ]
    prompts = {"expert.jinja", "expert.system.jinja", "learner.jinja", "learner.system.jinja"}
    parts = {f"prompts/{name}" for name in prompts}
    parts |= {"README.md", "latentmas.json", "links.safetensors"}
    assert set(told["files"]) == parts == set(server.files(REPOSITORY, "draft"))
    assert told["third"] == told["unchanged"] == repository.branches["draft"]


def test_pull_at_a_commit_a_branch_and_the_latest(trip: tuple[Hub, dict[str, Any], str]) -> None:
    server, told, _ = trip
    assert told["first"] != told["second"] == server.repositories[REPOSITORY].branches["main"]
    assert told["by_commit"] and told["latest"] and told["by_branch"]
    assert told["origin"] == [REPOSITORY, told["second"]]
    assert told["local"] == "distillation"
    assert "taken   inner.expert" in told["report"]


def test_a_backbone_is_loaded_at_the_commit_that_it_was_saved_with(
    trip: tuple[Hub, dict[str, Any], str],
) -> None:
    server, told, _ = trip
    assert told["pinned"] == [4096, 4096] and told["commits"] == [COMMIT]
    assert server.repositories["org/tiny"].branches["main"] != COMMIT
    assert told["current"] == 64


def test_what_a_person_wrote_on_the_hub_stays(trip: tuple[Hub, dict[str, Any], str]) -> None:
    card = trip[0].files(REPOSITORY)["README.md"].decode()
    assert "license: mit\n" in card and "\nRead me first.\n" in card
    assert card.endswith("\nThe end.\n")
    assert f'from_pretrained("{REPOSITORY}")' in card


def test_a_broken_download_goes_on_where_it_broke(trip: tuple[Hub, dict[str, Any], str]) -> None:
    server, told, _ = trip
    assert told["broken"]
    assert server.ranges == [f"me/broken/links.safetensors {BROKEN_AT // 1024 * 1024}"]


def test_a_pull_that_was_given_up_fetches_what_is_left(
    trip: tuple[Hub, dict[str, Any], str],
) -> None:
    server, told, _ = trip
    assert "LM511 cannot download 'me/given-up'" in told["given_up"] and told["again"]
    fetched = [r for r in server.requests if "me/given-up" in r]
    assert fetched.count("GET me/given-up/links.safetensors") == 2
    assert len(fetched) == len(set(fetched)) + 1


def test_refusals_say_what_was_asked(trip: tuple[Hub, dict[str, Any], str]) -> None:
    told = trip[1]
    for name in ("refused", "no_revision", "no_repository", "no_token"):
        assert told[name].startswith("LM511 cannot"), name
        assert "HF_TOKEN" in told[name]


def test_tokens_appear_nowhere(trip: tuple[Hub, dict[str, Any], str]) -> None:
    server, told, log = trip
    everything = json.dumps(told) + log + str(server.files(REPOSITORY))
    assert TOKEN not in everything and "WrongToken" not in everything


@pytest.mark.parametrize("name", ["team", "a/b/c", "../x", "me/", "https://me/x"])
def test_a_repository_has_an_owner_and_a_name(team: Path, name: str) -> None:
    with pytest.raises(lm.LatentMASError, match=r"LM511 .+ is not a repository name"):
        push_folder(team, name)


def test_without_a_network_the_error_says_what_was_asked() -> None:
    with pytest.raises(lm.WeightsError, match="LM511 cannot download 'me/nowhere' from the Hub"):
        lm.System.from_pretrained("me/nowhere")


def test_a_revision_is_of_a_repository(team: Path) -> None:
    with pytest.raises(lm.LatentMASError, match="is a folder"):
        lm.System.from_pretrained(team, revision="main")
