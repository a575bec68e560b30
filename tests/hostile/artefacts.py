"""Hostile saved teams: manifests, prompts, what lies beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.base import (
    DEEP,
    MANY,
    TWICE,
    Case,
    edit,
    lead_out,
    pipe,
    swell,
    write,
)

MANIFEST = "latentmas.json"
PROMPT = "prompts/planner.jinja"


def named(name: Any) -> Callable[[Path], object]:
    """Another name for the first agent's prompt."""
    return edit(lambda d: d["graph"]["agents"][0].update(prompt={"file": name}), MANIFEST)


def agent(**fields: Any) -> Callable[[Path], object]:
    return edit(lambda d: d["graph"]["agents"][0].update(fields), MANIFEST)


def backbone(**fields: Any) -> Callable[[Path], object]:
    return edit(lambda d: next(iter(d["graph"]["backbones"].values())).update(fields), MANIFEST)


def link(**fields: Any) -> Callable[[Path], object]:
    return edit(lambda d: d["graph"]["edges"][0]["link"].update(fields), MANIFEST)


def graph(**fields: Any) -> Callable[[Path], object]:
    return edit(lambda d: d["graph"].update(fields), MANIFEST)


def facts(**fields: Any) -> Callable[[Path], object]:
    return edit(lambda d: next(iter(d["facts"].values())).update(fields), MANIFEST)


def code_through_facts(path: Path) -> None:
    """A model whose configuration is code, which compiling would read."""
    evil = path.parent / "evil"
    evil.mkdir()
    (evil / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "run.Config"}}))
    (evil / "run.py").write_text("open('pwned', 'w')\n")
    backbone(source=str(evil), trust_remote_code=True)(path)
    edit(lambda d: d.update(facts={}), MANIFEST)(path)


def code_through_links(path: Path) -> None:
    """The same, in the metadata of the weights, which an edited graph is compared with."""
    code_through_facts(path)
    file = path / "links.safetensors"
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    told = json.loads(header["__metadata__"]["latentmas"])
    manifest = json.loads((path / MANIFEST).read_text())
    told["graph"]["backbones"] = manifest["graph"]["backbones"]
    told["facts"] = {}
    header["__metadata__"]["latentmas"] = json.dumps(told)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    backbone(trust_remote_code=False)(path)


def edited(path: Path) -> None:
    (path / PROMPT).write_text("{{ question }}{% if feedback %}{{ feedback }}{% endif %}")


def commit_elsewhere(path: Path) -> None:
    """A change that was decided, in a folder that is elsewhere."""
    outside = path.parent / "outside"
    outside.mkdir()
    for name in (MANIFEST, "links.safetensors"):
        (outside / name).write_bytes((path / name).read_bytes())
    (path / ".latentmas-commit").symlink_to(outside)


def training(content: str, name: str = "manifest.json") -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        home = path / "training" / "1-outer"
        home.mkdir(parents=True, exist_ok=True)
        for part in ("arguments.json", "manifest.json"):
            (home / part).write_text("{}")
        (home / "log.jsonl").write_text("{}\n")
        (home / name).write_text(content)

    return spoil


def scores(content: str) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        (path / "training").mkdir(exist_ok=True)
        (path / "training" / "scores.json").write_text(content)

    return spoil


def training_elsewhere(path: Path) -> None:
    training("{}")(path)
    (path / "training/1-outer/manifest.json").unlink()
    (path / "training/1-outer/manifest.json").symlink_to("/etc/passwd")


KEPT_BACK = (code_through_facts, "LM50[24]")
TEAMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "prompt above the folder": (named("../graph.yaml"), "(leaves|points outside) the folder"),
    "prompt at an absolute path": (named("/etc/passwd"), "(leaves|points outside) the folder"),
    "prompt that climbs out": (
        named("prompts/../../graph.yaml"),
        "(leaves|points outside) the folder",
    ),
    "prompt with backslashes": (named("..\\graph.yaml"), "(leaves|points outside) the folder"),
    "prompt at a drive": (named("C:/graph.yaml"), "(leaves|points outside) the folder"),
    "prompt with a zero in its name": (named("prompts/a\0b"), "(leaves|points outside) the folder"),
    "prompt without a name": (named(None), "(leaves|points outside) the folder|lacks"),
    "prompt that is a link out of the folder": (
        lead_out(PROMPT),
        "(leaves|points outside) the folder",
    ),
    "prompt that is a pipe": (pipe(PROMPT), "not a regular file"),
    "prompt of 1 GiB": (swell(2**30, PROMPT), "more than the limit for such files"),
    "prompt that is not UTF-8": (write(b"\xff\xfe", PROMPT), "cannot be read"),
    "prompt that was edited": (edited, "edited"),
    "manifest that is a link out of the folder": (
        lead_out(MANIFEST),
        "(leaves|points outside) the folder",
    ),
    "manifest that is a pipe": (pipe(MANIFEST), "not a regular file"),
    "manifest of 1 GiB": (swell(2**30, MANIFEST), "more than the limit for such files"),
    "manifest of brackets": (write(DEEP, MANIFEST), "nested"),
    "manifest of a million items": (write(MANY, MANIFEST), "more than 200,000 items"),
    "manifest with a key twice": (write(TWICE, MANIFEST), "duplicate key"),
    "manifest with a number of 5,000 digits": (
        write('{"version": ' + "9" * 5000 + "}", MANIFEST),
        "beyond 64 bits",
    ),
    "manifest with NaN": (write('{"version": NaN}', MANIFEST), "NaN is not valid JSON"),
    "manifest that is not UTF-8": (write(b'{"a": "\xff"}', MANIFEST), "not JSON"),
    "manifest that asks for remote code": (backbone(trust_remote_code=True), "LM504"),
    "manifest that asks for a kernel from the hub": (
        backbone(attention="evil/attention@main"),
        "LM504.*kernel",
    ),
    "manifest that keeps facts back, so that code is read": KEPT_BACK,
    "weights that keep facts back, so that code is read": (code_through_links, "LM502|LM501"),
    "link of an unknown kind": (link(kind="recursiv"), "unknown link kind"),
    "link kind that is a path": (link(kind="../../evil"), "unknown link kind"),
    "link kind that is a module": (link(kind="os.system"), "unknown link kind"),
    "link of a million times the width": (link(options={"expansion": 10**6}), "expansion"),
    "widths of 10^18": (facts(hidden_size=10**18), "hidden_size"),
    "a billion rounds": (graph(rounds=10**9), "rounds is 1000000000"),
    "10^15 latent steps": (graph(latent_steps=10**15), "latent_steps is 1000000000000000"),
    "100,000 agents": (
        edit(lambda d: d["graph"].update(agents=d["graph"]["agents"] * 50_000), MANIFEST),
        "items|nested|more than the limit",
    ),
    "name of a million letters": (agent(name="a" * 10**6), "1,000,000 characters"),
    "chat template in the options": (
        agent(chat_options={"chat_template": "{% for i in range(10**9) %}{% endfor %}"}),
        "not a variable of the chat template",
    ),
    "family that is unknown": (backbone(family="os"), "LM50"),
    "half-written change elsewhere": (commit_elsewhere, "(leaves|points outside) the folder"),
    "training record of brackets": (training(DEEP), "nested"),
    "training record that is a list": (training("[]"), "not an object"),
    "training log of brackets": (training(DEEP, "log.jsonl"), "nested"),
    "training record out of the folder": (training_elsewhere, "(leaves|points outside) the folder"),
    "scores that are none": (scores('[{"metric": 1}]'), "not a list of scores"),
    "scores of brackets": (scores(DEEP), "nested"),
}


def run(**fields: Any) -> Callable[[Path], object]:
    return edit(lambda d: d.update(fields))


def told(part: str, **fields: Any) -> Callable[[Path], object]:
    return edit(lambda d: d[part].update(fields))


def remote_run(path: Path) -> None:
    """A changed team, whose comparison would read a model's configuration."""

    def change(data: dict[str, Any]) -> None:
        spec = next(iter(data["team"]["graph"]["backbones"].values()))
        spec["trust_remote_code"] = True
        data["team"] |= {"digest": "0" * 64, "facts": {}}

    edit(change)(path)


RUNS: dict[str, tuple[Callable[[Path], object], str]] = {
    "manifest of brackets": (write(DEEP), "nested"),
    "manifest with a key twice": (write(TWICE), "duplicate key"),
    "manifest with an unknown field": (run(more=1), "more"),
    "manifest with a billion tokens": (told("arguments", max_new_tokens="1e9"), "max_new_tokens"),
    "manifest of another team that asks for code": (remote_run, "LM502"),
    "data that are a device": (told("data", path="/dev/zero", samples=None), "not a regular file"),
    "data that are another file": (told("data", path="/etc/passwd", samples=None), "LM512"),
}
LOOKED_AT = (
    "manifest that is a link out of the folder",
    "manifest that is a pipe",
    "manifest of brackets",
    "manifest of 1 GiB",
    "training record of brackets",
)
CASES = (
    *(Case(name, "team", spoil, words) for name, (spoil, words) in TEAMS.items()),
    *(Case(name, "inspect", *TEAMS[name]) for name in LOOKED_AT),
    Case("manifest that keeps facts back, so that code is read", "diff", *KEPT_BACK),
    *(Case(name, "run manifest", spoil, words) for name, (spoil, words) in RUNS.items()),
)
