"""Hostile releases and checkpoints: `.pt` files and the manifests beside them."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import pickletools
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from tests.hostile.base import ADAPTER, DEEP, TWICE, Case, edit, lead_out, pipe, swell, write

OUTER = "outer/outerlink_config.json"
Spoil = Callable[[Path], object]


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def saved(change: Callable[[Any], object], name: str = ADAPTER) -> Spoil:
    """Change what a `.pt` file holds; a result that is not None takes its place."""

    def spoil(path: Path) -> None:
        state = torch.load(path / name, weights_only=True)
        found = change(state)
        torch.save(state if found is None else found, path / name)

    return spoil


def pickled(data: bytes, name: str = ADAPTER, **more: bytes) -> Spoil:
    """An archive with this pickle in place of its own."""

    def spoil(path: Path) -> None:
        with zipfile.ZipFile(path / name, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/version", "3\n")
            for key, content in more.items():
                archive.writestr(f"archive/{key}", content)

    return spoil


def call(module_and_name: str, arguments: bytes) -> bytes:
    """A pickle of the dictionary {"proj1.weight": function(*arguments)}."""
    head = b"\x80\x02}X\x0c\x00\x00\x00proj1.weightc"
    return head + module_and_name.replace(" ", "\n").encode() + b"\n" + arguments + b"Rs."


def sparse(state: dict[str, Any]) -> None:
    state["proj1.weight"] = torch.eye(48).to_sparse()


def number(value: int) -> bytes:
    raw = value.to_bytes(9, "little")
    return b"\x8a\x09" + raw


def tensor(storage: bytes, offset: bytes, shape: bytes, stride: bytes) -> bytes:
    """A pickle of the dictionary {"proj1.weight": a tensor of these parts}."""
    held = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    parts = held + storage + b"tQ" + offset + shape + stride + b"\x89}t"
    return call("torch._utils _rebuild_tensor_v2", b"(" + parts)


def doubled(path: Path) -> None:
    """A key that is a tuple of tuples of …, which takes 2^60 steps to hash."""
    twice = b"".join(b"q%c" % i + b"h%c" % i + b"\x86" for i in range(60))
    pickled(b"\x80\x02}K\x01K\x01\x86" + twice + b"K\x01s.")(path)


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path / ADAPTER, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**25)


def two_pickles(path: Path) -> None:
    """One name twice: which one is read depends on the reader."""
    good = (path / ADAPTER).read_bytes()
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path / ADAPTER, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"a/{name}", data)
        archive.writestr("b/data.pkl", call("os system", b"X\x01\x00\x00\x00x\x85"))


def protocol_4(path: Path) -> None:
    data = pickletools.optimize(pickle.dumps({"proj1.weight": Evil()}, protocol=4))
    pickled(data)(path)


def legacy(path: Path) -> None:
    state = torch.load(path / ADAPTER, weights_only=True)
    torch.save(state, path / ADAPTER, _use_new_zipfile_serialization=False)


def wrong_storage(path: Path) -> None:
    small = number(4) + b""
    data = tensor(number(10**9), number(0), number(10**9) + b"\x85", number(1) + b"\x85")
    pickled(data, **{"data/0": struct.pack("<f", 1.0) * len(small)})(path)


PT: dict[str, tuple[Spoil, str]] = {
    "pickle with code": (saved(lambda s: {"proj1.weight": Evil()}), "not needed for tensors"),
    "pickle with code, protocol 4": (protocol_4, "not needed for tensors"),
    "pickle without an archive": (
        write(pickle.dumps({"proj1.weight": Evil()}), ADAPTER),
        "not a zip archive",
    ),
    "file of the time before archives": (legacy, "not a zip archive"),
    "call of eval": (pickled(call("builtins eval", b"X\x01\x00\x00\x001\x85")), "builtins.eval"),
    "terabyte of zeros": (
        pickled(call("builtins bytearray", number(10**12) + b"\x85")),
        "builtins.bytearray",
    ),
    "tensor of 10^12 by constructor": (
        pickled(call("torch Tensor", number(10**12) + b"\x85")),
        "torch.Tensor",
    ),
    "key that takes for ever to hash": (doubled, "tuple as a key"),
    "sparse tensor": (saved(sparse), "a sparse tensor"),
    "meta tensor": (
        saved(lambda s: s.update({"proj1.weight": torch.empty(10**6, 10**6, device="meta")})),
        "a meta tensor",
    ),
    "quantized tensor": (
        pickled(call("torch._utils _rebuild_qtensor", number(1) + b"\x85")),
        "a quantized tensor",
    ),
    "tensor beyond its numbers": (
        pickled(
            tensor(number(1), number(10**6), number(48) + b"\x85", number(1) + b"\x85"),
            **{"data/0": b"\0" * 4},
        ),
        "beyond its stored numbers",
    ),
    "tensor of 10^18 over one number": (
        pickled(
            tensor(
                *(number(1), number(0)),
                *(number(10**9) * 2 + b"\x86", number(0) * 2 + b"\x86"),
            ),
            **{"data/0": b"\0" * 4},
        ),
        "lacks|has shape",
    ),
    "storage that is shorter than it says": (wrong_storage, "not as many as it says"),
    "archive that unpacks to 32 MiB": (zip_bomb, "unpacks to 33,554,432 bytes"),
    "archive with duplicate name": (two_pickles, "duplicate name"),
    "not a number": (
        saved(lambda s: s["proj1.weight"].view(-1)[:1].fill_(float("nan")) and None),
        "not finite",
    ),
    "integers": (saved(lambda s: s.update({"proj1.bias": torch.ones(48).int()})), "IntStorage"),
    "wrong shape": (saved(lambda s: s.update({"proj1.bias": torch.ones(7)})), "has shape (7,)"),
    "text in place of a tensor": (saved(lambda s: s.update({"proj1.bias": "x"})), "is a str"),
    "list": (saved(lambda s: [1, 2]), "holds a list"),
    "empty file": (write(b"", ADAPTER), "not a zip archive"),
    "file of 1 GiB": (swell(2**30, ADAPTER), "unpacks to 1,073,741,824 bytes"),
    "pipe in its place": (pipe(ADAPTER), "not a regular file"),
}


def first(**fields: Any) -> Spoil:
    """Change the first outer link's entry."""
    return edit(lambda d: d["tasks"]["math"]["adapters"][0].update(fields), OUTER)


def role_elsewhere(path: Path) -> None:
    shutil.move(path / "planner", path.parent / "elsewhere")
    (path / "planner").symlink_to(path.parent / "elsewhere")


RELEASES: dict[str, tuple[Spoil, str]] = {
    "file name above the folder": (
        first(filename="../planner/adapter(math).pt"),
        "not a plain file",
    ),
    "file name at an absolute path": (first(filename="/etc/passwd"), "not a plain file name"),
    "file name that is a number": (first(filename=3), "not a plain file name"),
    "link type that is unknown": (first(adapter_type="os.system"), "link type 'os.system'"),
    "key that is a list": (first(legacy_key=[1]), "link 'outer_12' is not listed"),
    "manifest of brackets": (write(DEEP, OUTER), "nested"),
    "manifest with a key twice": (write(TWICE, OUTER), "duplicate key"),
    "manifest of 1 GiB": (swell(2**30, OUTER), "more than the limit for such files"),
    "manifest that is a pipe": (pipe(OUTER), "not a regular file"),
    "link that points outside the release": (lead_out(ADAPTER), "points outside the release"),
    "role that points outside the release": (role_elsewhere, "points outside"),
    "pickle with code": (saved(lambda s: {"proj1.weight": Evil()}), "not needed for tensors"),
    "sparse tensor": PT["sparse tensor"],
}


def part(name: str, change: Callable[[Any], object]) -> Spoil:
    """Change a `.pt` file of a checkpoint, which may hold states of random generators."""

    def spoil(path: Path) -> None:
        state = torch.load(path / name, weights_only=False)
        found = change(state)
        torch.save(state if found is None else found, path / name)

    return spoil


def state(**fields: Any) -> Spoil:
    return edit(lambda d: d.update(fields), "trainer_state.json")


def nan_links(path: Path) -> None:
    file = path / "links.safetensors"
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    tensors = load(raw)
    next(iter(tensors.values())).view(-1)[:1].fill_(float("nan"))
    file.write_bytes(save(tensors, json.loads(raw[8 : 8 + length]).get("__metadata__")))


CHECKPOINTS: dict[str, tuple[Spoil, str]] = {
    "optimizer with code": (part("optimizer.pt", lambda s: {"state": Evil()}), "not needed"),
    "scheduler with code": (part("scheduler.pt", lambda s: {"a": Evil()}), "not needed"),
    "random states with code": (part("rng_state.pth", lambda s: {"cpu": Evil()}), "not needed"),
    "terabyte of zeros in the optimizer": (
        pickled(call("builtins bytearray", number(10**12) + b"\x85"), "optimizer.pt"),
        "builtins.bytearray",
    ),
    "optimizer of other links": (
        part("optimizer.pt", lambda s: s["param_groups"][0].update(params=[0])),
        "other links or another",
    ),
    "optimizer that is a list": (part("optimizer.pt", lambda s: [1]), "holds a list"),
    "optimizer without a state": (
        part("optimizer.pt", lambda s: collections.OrderedDict(a=torch.ones(1))),
        "no state of an optimizer",
    ),
    "random states that are none": (part("rng_state.pth", lambda s: {"a": 1}), "no states"),
    "random states of another form": (
        part("rng_state.pth", lambda s: s.update(python=(3, (1, 2), None))),
        "damaged",
    ),
    "state of brackets": (write(DEEP, "trainer_state.json"), "cut short"),
    "state of 1 GiB": (swell(2**30, "trainer_state.json"), "cut short"),
    "state with an unknown field": (state(run="os.system"), "not the state of a training"),
    "state with 10^18 steps": (state(global_step=10**18), "global_step"),
    "state with a batch of 10^12": (state(train_batch_size=10**12), "train_batch_size"),
    "state with text for a number": (state(global_step="2"), "global_step"),
    "state whose log is a number": (state(log_history=3), "log_history"),
    "links that are not finite": (nan_links, "not finite"),
    "links that lead out": (lead_out("links.safetensors"), "points outside"),
}
CASES = (
    *(Case(name, "link file", spoil, words) for name, (spoil, words) in PT.items()),
    *(Case(name, "release", spoil, words) for name, (spoil, words) in RELEASES.items()),
    *(Case(name, "checkpoint", spoil, words) for name, (spoil, words) in CHECKPOINTS.items()),
)
