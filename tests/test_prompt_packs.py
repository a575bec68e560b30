"""Prompt packs: what is read, what is written, and how mistakes are named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentmas.errors import DataError
from latentmas.prompts import packs
from latentmas.prompts.packs import read_prompt_pack, write_prompt_pack

SUFFIXES = (".json", ".yaml", ".yml")
PACK = {
    "planner": {"prompt": "Plan {{ question }}\n  {% if feedback %}{{ feedback }}{% endif %}\n"},
    "solver": {"system": "You solve: everything.", "prompt": "{{ plan }}\n\n\n"},
    "mute": {"system": ""},
}

texts = st.text(st.characters(exclude_categories=["Cs"]))
own = st.one_of(
    texts,
    st.dictionaries(st.sampled_from(["system", "prompt"]), texts, min_size=1),
)
any_pack = st.dictionaries(texts.filter(bool), own, min_size=1, max_size=4)


def plain(pack: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {agent: {"prompt": own} if isinstance(own, str) else own for agent, own in pack.items()}


def written(tmp_path: Path, text: str, name: str = "pack.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    path = write_prompt_pack(tmp_path / "deep" / f"pack{suffix}", PACK)
    assert read_prompt_pack(path) == PACK
    assert read_prompt_pack(str(path)) == PACK
    assert list(read_prompt_pack(path)) == list(PACK), "agents keep their order"
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing is left beside it"


@given(any_pack)
@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_any_pack_survives(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, pack: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    assert read_prompt_pack(write_prompt_pack(path, pack)) == plain(pack)


def test_yaml_shows_lines_as_lines(tmp_path: Path) -> None:
    text = write_prompt_pack(tmp_path / "pack.yaml", PACK).read_text()
    assert "prompt: |\n    Plan {{ question }}\n" in text


def test_a_text_is_the_prompt(tmp_path: Path) -> None:
    pack = {"solver": {"prompt": "{{ question }}"}}
    assert read_prompt_pack(written(tmp_path, "solver: '{{ question }}'")) == pack
    text = "\ufeff" + json.dumps({"solver": "{{ question }}"})
    assert read_prompt_pack(written(tmp_path, text, "pack.json")) == pack


def test_texts_may_be_anchored(tmp_path: Path) -> None:
    text = "a: {system: &s Both., prompt: A}\nb: {system: *s, prompt: B}\n"
    assert read_prompt_pack(written(tmp_path, text))["b"] == {"system": "Both.", "prompt": "B"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "is empty"),
        ("{}", "is empty"),
        ("- a", "holds list, not a mapping"),
        ("just text", "holds str, not a mapping"),
        ("1: a", "an agent's name must be a string, found 1"),
        ("'': a", "an agent's name must be a string, found ''"),
        ("a:", "agent 'a': found nothing"),
        ("a: 3", "agent 'a': found int"),
        ("a: [b]", "agent 'a': found list"),
        ("a: {}", "agent 'a': found an empty mapping"),
        ("a: {promt: b}", "agent 'a': unknown field 'promt'; did you mean 'prompt'?"),
        ("a: {model: b}", "agent 'a': unknown field 'model'; known: prompt, system"),
        ("a: {1: b}", "agent 'a': unknown field 1"),
        ("a: {prompt: 1.5}", "agent 'a', field 'prompt': found float, not text"),
        ("a: {prompt: x, system: }", "agent 'a', field 'system': found nothing, not text"),
        ("a: b\na: c", "duplicate key 'a'"),
        ("a: 'b", "cannot be parsed"),
        ("a: !!python/object/apply:os.getcwd []", "cannot be parsed"),
        ("a: !!timestamp x", "cannot be parsed"),
        ("a: &a {prompt: x}\nb: *a", "only strings may be anchored"),
        ("a: &a {<<: *a}", "only strings may be anchored"),
        ("a: {<<: [" + "[" * 5000, "cannot be parsed"),
    ],
)
def test_mistakes_in_yaml_are_named(tmp_path: Path, text: str, found: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_prompt_pack(path)
    assert found in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "cannot be parsed"),
        ("[]", "is empty"),
        ("null", "is empty"),
        ('"a"', "holds str"),
        ('{"a": "b", "a": "c"}', "duplicate key 'a'"),
        ('{"a": null}', "found nothing"),
        ("[" * 100_000, "cannot be parsed"),
    ],
)
def test_mistakes_in_json_are_named(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(DataError, match=found):
        read_prompt_pack(written(tmp_path, text, "pack.json"))


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_prompt_pack(tmp_path / "none.yaml")
    with pytest.raises(DataError, match="cannot be read"):
        read_prompt_pack(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_prompt_pack("a\0b")
    (tmp_path / "latin.yaml").write_bytes(b"a: caf\xe9")
    with pytest.raises(DataError, match="cannot be read"):
        read_prompt_pack(tmp_path / "latin.yaml")
    monkeypatch.setattr(packs, "MOST_BYTES", 100)
    with pytest.raises(DataError, match="larger than 100 bytes"):
        read_prompt_pack(written(tmp_path, "a: " + "b" * 98))
    assert read_prompt_pack(written(tmp_path, "a: " + "b" * 97))


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_only_packs_are_written(tmp_path: Path, suffix: str) -> None:
    path = write_prompt_pack(tmp_path / f"pack{suffix}", PACK)
    before = path.read_bytes()
    for wrong in ({}, {"a": None}, {"a": {"prompt": "x", "model": "y"}}, {"a": "\ud800"}):
        try:
            write_prompt_pack(path, wrong)  # type: ignore[arg-type]
        except DataError:
            assert path.read_bytes() == before
        else:  # a lone surrogate has an escape in that format
            assert read_prompt_pack(path) == plain(wrong)
            write_prompt_pack(path, PACK)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_packs_are_light() -> None:
    code = "import sys, latentmas.prompts.packs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
