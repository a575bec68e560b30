"""Hostile safetensors: the six classic malformations, and others."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from tests.hostile.base import DEEP, TWICE, Case, lead_out, pipe

LINKS = "links.safetensors"
NAME = "inner.planner.proj1.weight"


def parts(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and weights."""
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def joined(
    header: bytes | dict[str, Any], weights: bytes = b"", length: int | None = None
) -> bytes:
    """A file of these parts; `length` is what it says of the header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + weights


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Change the header, leave the weights."""

    def do(raw: bytes) -> bytes:
        told, weights = parts(raw)
        change(told)
        return joined(told, weights)

    return do


def field(key: str, value: Any) -> Callable[[bytes], bytes]:
    """Change one field of one tensor."""
    return header(lambda told: told[NAME].update({key: value}))


def state(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[bytes], bytes]:
    """Change the tensors themselves."""

    def do(raw: bytes) -> bytes:
        tensors = load(raw)
        metadata = parts(raw)[0].get("__metadata__")
        change(tensors)
        return save(tensors, metadata)

    return do


def shifted(raw: bytes, by: int) -> bytes:
    """Move the first tensor's place."""
    told, weights = parts(raw)
    first = min((name for name in told if name != "__metadata__"), key=lambda n: places(told, n))
    begin, end = told[first]["data_offsets"]
    told[first]["data_offsets"] = [begin + by, end + by]
    return joined(told, weights)


def places(told: dict[str, Any], name: str) -> Any:
    return told[name]["data_offsets"]


def gap(raw: bytes) -> bytes:
    """Four bytes that belong to no tensor, in the middle."""
    told, weights = parts(raw)
    last = max((name for name in told if name != "__metadata__"), key=lambda n: places(told, n))
    begin, end = told[last]["data_offsets"]
    told[last]["data_offsets"] = [begin + 4, end + 4]
    return joined(told, weights[:begin] + b"\0" * 4 + weights[begin:])


def set_value(value: float) -> Callable[[bytes], bytes]:
    return state(lambda tensors: tensors[NAME].view(-1)[:1].fill_(value))


HEADERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "header longer than the file": (lambda raw: joined(*parts(raw), length=10**6), "header would"),
    "header of 2^63 bytes": (lambda raw: joined(*parts(raw), length=2**63), "header would"),
    "header that is not UTF-8": (lambda raw: joined(b'{"\xff": 1}'), "not valid JSON"),
    "header that is not JSON": (lambda raw: joined(b"{weights}"), "not valid JSON"),
    "header that is a list": (lambda raw: joined(b"[1, 2]"), "not a JSON object"),
    "header of brackets": (lambda raw: joined(b'{"a": ' + DEEP.encode()), "nested"),
    "header with a key twice": (lambda raw: joined(TWICE.encode()), "duplicate key"),
    "header of a million tensors": (
        lambda raw: joined(b"{" + b'"a":{},' * 10**6 + b'"b":{}}'),
        "more than 200,000 items",
    ),
    "overlapping tensors": (lambda raw: shifted(raw, 4), "overlaps another|leaves a gap"),
    "a gap between tensors": (gap, "leaves a gap"),
    "bytes after the last tensor": (lambda raw: raw + b"\0" * 4096, "the file has"),
    "place beyond the file": (field("data_offsets", [0, 2**40]), "data_offsets hold"),
    "place that runs backwards": (field("data_offsets", [64, 0]), "are not a range"),
    "place below zero": (field("data_offsets", [-64, 960]), "are not a range"),
    "shape that does not fit the bytes": (field("shape", [999, 999]), "takes 3,992,004 bytes"),
    "shape that overflows": (field("shape", [2**62, 2**62]), "takes"),
    "shape below zero": (field("shape", [-16, -16]), "not a list of sizes"),
    "shape of fractions": (field("shape", [1.5]), "not a list of sizes"),
    "shape without end": (field("shape", [1] * 1000), "not a list of sizes"),
    "empty shape in place of a matrix": (
        header(lambda told: told.update({NAME: told[NAME] | {"shape": [0, 16]}})),
        "takes 0 bytes",
    ),
    "unknown type": (field("dtype", "F1024"), "unknown dtype"),
    "type that is no text": (field("dtype", ["F32"]), "unknown dtype"),
    "tensor without a type": (
        header(lambda told: told[NAME].pop("dtype")),
        "does not have exactly the fields",
    ),
    "metadata that is no text": (header(lambda t: t.update(__metadata__={"a": 1})), "__metadata__"),
    "empty file": (lambda raw: b"", "has 0 bytes"),
    "file cut short": (lambda raw: raw[:-7], "the file has"),
    "pickle in its place": (lambda raw: pickle.dumps({"a": 1}), "header would"),
}
TENSORS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "not a number": (set_value(float("nan")), "not finite"),
    "infinity": (set_value(float("inf")), "not finite"),
    "integers": (state(lambda s: s.update({NAME: s[NAME].int()})), "type int32"),
    "float8": (state(lambda s: s.update({NAME: s[NAME].to(torch.float8_e4m3fn)})), "type F8_E4M3"),
    "no row": (state(lambda s: s.update({NAME: torch.zeros(0, 16)})), "shape (0, 16)"),
    "tensor that nothing asks for": (state(lambda s: s.update(more=torch.ones(2))), "unexpected"),
    "tensor that is missing": (state(lambda s: s.pop(NAME)), f"missing: {NAME}"),
}


def in_file(change: Callable[[bytes], bytes], name: str = LINKS) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        file = path / name if name else path
        file.write_bytes(change(file.read_bytes()))

    return spoil


def sparse(path: Path) -> None:
    """A sound header over 64 GiB of nothing."""
    told = {NAME: {"dtype": "F32", "shape": [2**17, 2**17], "data_offsets": [0, 2**36]}}
    raw = joined(told)
    (path / LINKS).write_bytes(raw)
    os.truncate(path / LINKS, len(raw) + 2**36)


def long_header(path: Path) -> None:
    """A header of a gibibyte that is there."""
    (path / LINKS).write_bytes((2**30).to_bytes(8, "little") + b"{")
    os.truncate(path / LINKS, 2**30 + 8)


def folder(path: Path) -> None:
    (path / LINKS).unlink()
    (path / LINKS).mkdir()


CASES = (
    *(Case(name, "team", in_file(change), told) for name, (change, told) in HEADERS.items()),
    *(Case(name, "team", in_file(change), told) for name, (change, told) in TENSORS.items()),
    *(
        Case(name, "weights of a live team", in_file(change), told)
        for name, (change, told) in (HEADERS | TENSORS).items()
        if name in ("overlapping tensors", "infinity", "integers", "no row", "file cut short")
    ),
    *(
        Case(name, "file of links", in_file(change, ""), told)
        for name, (change, told) in (HEADERS | TENSORS).items()
        if name in ("header of brackets", "a gap between tensors", "not a number", "unknown type")
    ),
    Case("64 GiB of nothing under a sound header", "team", sparse, "differences in link weights"),
    Case("header of 1 GiB", "team", long_header, "its header has 1,073,741,824 bytes"),
    Case("header of 1 GiB", "inspect", long_header, "its header has 1,073,741,824 bytes"),
    Case("link in the file system, out of the folder", "team", lead_out(LINKS), "points outside"),
    Case("link in the file system, out of the folder", "inspect", lead_out(LINKS), "lacks"),
    Case("pipe in its place", "team", pipe(LINKS), "lacks"),
    Case("pipe in its place", "diff", pipe(LINKS), "lacks"),
    Case("folder in its place", "team", folder, "lacks"),
)
