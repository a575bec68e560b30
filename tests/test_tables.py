"""Files of rows: their forms, their limits, and errors that name the place."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import pytest

from latentmas import tables
from latentmas.errors import DataError
from latentmas.io import digest_rows
from latentmas.tables import digest_of, read_table

ROWS = [{"q": "one é", "n": 1}, {"q": "two", "n": 2}, {"q": "three", "n": 3}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in ROWS)
CONTENT = {
    "rows.jsonl": LINES,
    "rows.json": json.dumps(ROWS),
    "wrapped.json": json.dumps({"data": ROWS}),
    "rows.csv": "q,n\n" + "".join(f"{row['q']},{row['n']}\n" for row in ROWS),
}


def _written(folder: Path, name: str, packed: bool) -> Path:
    raw = CONTENT[name].encode("utf-8-sig" if packed else "utf-8")
    path = folder / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(raw) if packed else raw)
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", CONTENT)
def test_forms(name: str, packed: bool, tmp_path: Path):
    path = _written(tmp_path, name, packed)
    want = [{**row, "n": str(row["n"])} for row in ROWS] if name.endswith("csv") else ROWS
    assert read_table(path).rows == want
    assert read_table(path, limit=2).rows == want[:2]
    place = ":3" if name == "rows.jsonl" else ", row 1"
    assert read_table(path).where(1) == f"{path}{place}"


def test_parquet(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(ROWS), path)
    assert read_table(path).rows == ROWS
    assert read_table(path, limit=1).rows == ROWS[:1]
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="not a parquet file that can be read"):
        read_table(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs the package pyarrow.*latentmas\[eval\]"):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"q": 1}\n{"q": \n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", b'{"q": 1}\n[1]\n', r"a\.jsonl:2: found list, not a JSON object"),
        ("a.jsonl", b'{"q": "\xff"}\n', r"a\.jsonl:1: not JSON"),
        ("a.jsonl", b"\n\n", "there are no rows in it"),
        ("a.json", b'{"q": 1}\n{"q": 2}\n', r"rename a file with one object per line to \.jsonl"),
        ("a.json", b'{"q": 1}', "found dict; give a list of objects"),
        ("a.json", b"[1, 2]", "row 0: found int, not a JSON object"),
        ("a.csv", b"a,b\n1\n", "row 0: its columns are not those of the header"),
        ("a.csv", b"a,b\n1,2,3\n", "row 0: its columns are not those of the header"),
        ("a.csv", b"a\n\xff\n", "not UTF-8"),
        ("a.jsonl.gz", b"not gzip", "cannot read"),
        ("a.jsonl.gz", gzip.compress(b'{"q": 1}\n' * 9, mtime=0)[:-9], "cannot read"),
        ("a.txt", b"x", r"unknown ending; give a file that ends in \.jsonl"),
        ("a.parquet.gz", b"x", "unknown ending"),
        ("a", b"x", "unknown ending"),
    ],
)
def test_broken_files(name: str, content: bytes, told: str, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=told):
        read_table(path)


def test_what_is_not_a_file(tmp_path: Path):
    with pytest.raises(DataError, match=r"cannot read .*No such file"):
        read_table(tmp_path / "none.jsonl")
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="not a regular file"):
        read_table(pipe)


@pytest.mark.parametrize(
    ("limit", "value", "name", "told"),
    [
        ("LARGEST_LINE", 5, "rows.jsonl", r":1: a line of more than 5 bytes"),
        ("LARGEST_FILE", 5, "rows.jsonl", "is larger than 5 bytes"),
        ("LARGEST_DOCUMENT", 5, "rows.json", "its content is larger than 5 bytes"),
        ("LARGEST_DOCUMENT", 5, "rows.csv", "its content is larger than 5 bytes"),
        ("MOST_ITEMS", 5, "rows.json", "holds more than 5 items"),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_absurd_sizes(
    limit: str,
    value: int,
    name: str,
    told: str,
    packed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(tables._files, limit, value)
    with pytest.raises(DataError, match=told):
        read_table(_written(tmp_path, name, packed))


def test_a_small_file_that_unpacks_to_a_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress((json.dumps({"q": "x" * 1000}) + "\n").encode() * 1000))
    monkeypatch.setattr(tables._files, "LARGEST_FILE", 100_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="its content is larger than 100,000 bytes"):
        read_table(path)
    assert len(read_table(path, limit=5).rows) == 5


def test_too_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables._table, "MOST_ROWS", 2)
    for name in CONTENT:
        with pytest.raises(DataError, match="more than 2 rows"):
            read_table(_written(tmp_path, name, False))


def test_digests_are_those_of_manifests():
    assert digest_of(ROWS) == digest_rows(ROWS)
    assert digest_of(ROWS) != digest_of(ROWS[::-1])
    assert digest_of([{"n": 1, "q": "one é"}]) == digest_of(ROWS[:1])
