"""Hostile graph files, plans, prompt packs and rows of data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.hostile.base import DEEP, MANY, TWICE, Case, edit, swell, write

Spoil = Callable[[Path], object]

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def graph(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Change a graph file in YAML."""

    def spoil(path: Path) -> None:
        data = yaml.safe_load(path.read_text())
        change(data)
        path.write_text(yaml.safe_dump(data))

    return spoil


def backbone(**fields: Any) -> Spoil:
    return graph(lambda d: next(iter(d["backbones"].values())).update(fields))


def prompt_file(name: Any) -> Spoil:
    def change(data: dict[str, Any]) -> None:
        del data["agents"][0]["prompt"]
        data["agents"][0]["prompt_file"] = name

    return graph(change)


def prompt_link(path: Path) -> None:
    (path.parent / "p.jinja").symlink_to("/etc/passwd")
    prompt_file("p.jinja")(path)


def prompt_device(path: Path) -> None:
    (path.parent / "p.jinja").symlink_to("/dev/zero")
    prompt_file("p.jinja")(path)


def appended(text: str) -> Spoil:
    def spoil(path: Path) -> None:
        path.write_text(path.read_text() + text)

    return spoil


YAML: dict[str, tuple[Spoil, str]] = {
    "aliases that grow nine-fold eight times": (appended(LAUGHS), "aliases expanded"),
    "an anchor that contains itself": (appended("x: &x [*x, *x]\n"), "contains itself|aliases"),
    "tag that calls Python": (
        appended("x: !!python/object/apply:os.system ['touch pwned']\n"),
        "could not determine a constructor",
    ),
    "tag that makes a Python name": (appended("x: !!python/name:os.system\n"), "constructor"),
    "number of 20,000 sixties": (appended(f"x: 1{':1' * 20_000}\n"), "a number of"),
    "float of 20,000 sixties": (appended(f"x: 1{':1' * 20_000}.5\n"), "a number of"),
    "number of 200 bits": (appended("version: 0x" + "f" * 50), "cannot be parsed|beyond 64 bits"),
    "date that is none": (appended("x: 2024-99-99\n"), "cannot be parsed"),
    "set of bytes": (appended("x: !!binary aGVsbG8=\n"), "holds a bytes"),
    "not a number": (appended("rounds: .nan\n"), "duplicate key|not finite"),
    "100,000 values": (appended(f"x: [{'1, ' * 100_000}]\n"), "more than 50,000 values"),
    "brackets": (write(DEEP), "nested more than"),
    "key twice": (appended("name: other\n"), "duplicate key"),
    "1 GiB": (swell(2**30), "larger than"),
    "not UTF-8": (write(b"name: \xff"), "not UTF-8 text"),
    "link of an unknown kind": (
        graph(lambda d: d["edges"][0].update(link={"kind": "recursiv"})),
        "unknown link kind 'recursiv'; did you mean 'recursive'",
    ),
    "link kind that is a module": (
        graph(lambda d: d["edges"][0].update(link={"kind": "os.system"})),
        "unknown link kind",
    ),
    "remote code": (backbone(trust_remote_code=True), "LM504"),
    "kernel from the hub": (backbone(attention="evil/attention"), "LM504.*kernel"),
    "prompt file above the folder": (prompt_file("../graph.yaml"), "outside the folder"),
    "prompt file at an absolute path": (prompt_file("/etc/passwd"), "outside the folder"),
    "prompt file that leads out": (prompt_link, "outside the folder"),
    "prompt file that is a device": (prompt_device, "outside the folder"),
    "prompt file with a zero": (prompt_file("a\0b"), "cannot be read: .*embedded null"),
    "prompt file that is the folder": (prompt_file("."), "not a file"),
    "chat template in the options": (
        graph(lambda d: d["agents"][0].update(chat_options={"chat_template": "x"})),
        "not a variable of the chat template",
    ),
    "10,000 agents": (
        graph(lambda d: d.update(agents=d["agents"] * 5_000)),
        "more than 50,000 values|at most 512 items",
    ),
    "a hundred rounds of 4,000 edges": (
        graph(lambda d: d.update(rounds=100, edges=d["edges"] * 2_000)),
        "more than 50,000 values|more than 100,000 steps",
    ),
    "template that loops for ever over names": (
        graph(lambda d: d["agents"][0].update(backbone="x" * 300_000)),
        "unknown backbone",
    ),
}
JSON: dict[str, tuple[Spoil, str]] = {
    "brackets": (write(DEEP), "nested"),
    "a million items": (write(MANY), "more than 200,000 items"),
    "key twice": (write(TWICE), "duplicate key"),
    "number of 5,000 digits": (edit(lambda d: None), ""),
    "1 GiB": (swell(2**30), "larger than"),
    "remote code": (
        edit(lambda d: next(iter(d["backbones"].values())).update(trust_remote_code=True)),
        "LM504",
    ),
    "4,000 edges in a hundred rounds": (
        edit(lambda d: d.update(rounds=100, edges=d["edges"] * 2_000)),
        "more than 100,000 steps",
    ),
    "half of a surrogate pair": (edit(lambda d: d.update(name="\ud800")), "surrogate"),
}
JSON["number of 5,000 digits"] = (write('{"rounds": ' + "9" * 5000 + "}"), "beyond 64 bits")


def step(**fields: Any) -> Spoil:
    return edit(lambda d: d["steps"][0].update(fields))


def wide(path: Path) -> None:
    """Links of forty tebibytes, which the plan describes without a fault."""

    def change(data: dict[str, Any]) -> None:
        width = 2**20
        for backbone in data["backbones"].values():
            backbone["info"]["hidden_size"] = width
        for link in data["links"]:
            expansion = link["options"]["expansion"]
            hidden, projected = expansion * width, link["role"] == "outer"
            biases = hidden + width + width * projected
            weights = 2 * hidden * width + width * width * projected
            link |= {"in_dim": width, "out_dim": width}
            link["n_parameters"] = weights + biases + 4 * width

    edit(change)(path)


PLANS: dict[str, tuple[Spoil, str]] = {
    "brackets": (write(DEEP), "nested"),
    "key twice": (write(TWICE), "duplicate key"),
    "not UTF-8": (write(b'{"a": "\xff"}'), "not a plan"),
    "1 GiB": (swell(2**30), "larger than"),
    "10^12 latent steps": (step(latent_steps=10**12), "latent_steps"),
    "round 0": (step(round=0), "round"),
    "value that no step makes": (step(inputs={"plan": "nowhere"}), "before it is defined"),
    "links of 40 TiB": (wide, "GiB of memory"),
    "link of other widths than its backbones": (
        edit(lambda d: d["links"][0].update(in_dim=999)),
        "width 999",
    ),
    "link with more weights than its kind": (
        edit(lambda d: d["links"][0].update(n_parameters=2**50)),
        "compile the graph again",
    ),
    "link of an unknown kind": (edit(lambda d: d["links"][0].update(kind="os")), "unknown link"),
    "link with unknown options": (
        edit(lambda d: d["links"][0].update(options={"run": "x"})),
        "options of kind",
    ),
    "agent without a backbone": (edit(lambda d: d.update(backbones={})), "no backbone"),
    "remote code": (
        edit(lambda d: next(iter(d["backbones"].values()))["spec"].update(trust_remote_code=True)),
        "LM504",
    ),
}
PACKS: dict[str, tuple[Spoil, str]] = {
    "aliases that grow": (write(LAUGHS), "only strings may be anchored"),
    "tag that calls Python": (write("a: !!python/object/apply:os.getcwd []"), "cannot be parsed"),
    "brackets": (write(DEEP), "nested more than"),
    "number of 20,000 sixties": (write(f"a: 1{':1' * 20_000}"), "a number of"),
    "key twice": (write("a: x\na: y"), "duplicate key"),
    "1 GiB": (swell(2**30), "larger than"),
    "not UTF-8": (write(b"a: \xff"), "cannot be read"),
}
ROWS: dict[str, tuple[Spoil, str]] = {
    "row of brackets": (write(DEEP), "nested"),
    "row of a million items": (write(MANY), "more than 200,000 items"),
    "row with a key twice": (write(TWICE), "duplicate key"),
    "row with a number of 5,000 digits": (write('{"a": ' + "9" * 5000 + "}"), "digits"),
    "not UTF-8": (write(b'{"a": "\xff"}'), "cannot read"),
}
CASES = (
    *(Case(name, "graph file", spoil, words) for name, (spoil, words) in YAML.items()),
    *(Case(name, "graph file (JSON)", spoil, words) for name, (spoil, words) in JSON.items()),
    *(Case(name, "plan", spoil, words) for name, (spoil, words) in PLANS.items()),
    *(Case(name, "prompt pack", spoil, words) for name, (spoil, words) in PACKS.items()),
    *(Case(name, "rows", spoil, words) for name, (spoil, words) in ROWS.items()),
    *(Case(name, "training rows", spoil, words) for name, (spoil, words) in ROWS.items()),
    Case("row that is a list", "rows", write(json.dumps([1])), "not a JSON object"),
)
