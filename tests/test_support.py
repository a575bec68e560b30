"""The support matrix of the docs says what runs; a part of it is run here."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.golden.support import render
from tests.support import COLUMNS, FAMILIES, PAGE, can_check, cell, committed

QUICK = ("fp32", "static executor")
WHOLE = ("qwen3", "gpt2", "qwen2_vl")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_the_page_is_as_generated() -> None:
    cells = committed()
    assert set(cells) == {(family, column) for family in FAMILIES for column in COLUMNS}
    assert render(cells) == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES)
def test_executors_are_as_the_page_says(family: str) -> None:
    cells = committed()
    for column in QUICK:
        assert cell(family, column) == cells[family, column], column


@pytest.mark.parametrize("column", [column for column in COLUMNS if column not in QUICK])
@pytest.mark.parametrize("family", WHOLE)
def test_whole_rows_are_as_the_page_says(family: str, column: str) -> None:
    if not can_check(column):
        pytest.skip(f"{COLUMNS[column][1]} is not installed")
    assert cell(family, column) == committed()[family, column]
