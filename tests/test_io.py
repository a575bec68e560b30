"""Teams on disk: bit for bit there and back, whole or not at all, and nothing but links."""

from __future__ import annotations

import json
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as from_bytes
from safetensors.torch import load_file, save_file

import latentmas as lm
from latentmas.io import load_link_weights, load_system, save_system
from latentmas.testing import tiny_backbone
from tests.teams import QUESTIONS, tiny

PARTS = {"README.md", "latentmas.json", "links.safetensors", "prompts"}


def rich_graph(name: str = "rich") -> lm.Graph:
    """Shared links, text sources, system turns, several kinds, names and texts that are awkward."""
    small, wide = tiny("llama", 16), tiny("qwen3", 32, seed=1)
    graph = lm.Graph(name, inputs=["question", "hint"], rounds=2, latent_steps=3)
    same = {"kind": "recursive", "share": "thinking"}
    graph.add_agent(
        "one", small, prompt="{% if back %}{{ back }}{% endif %}{{ question }}", inner=same
    )
    graph.add_agent(
        "two",
        small,
        system="Be brief; {{ rule }}\nand — exact.",
        prompt="  {{ one }}\n\n{{ facts }} {{ question }}\t\n",
        inner=same,
    )
    graph.add_agent(
        "three", wide, prompt="{{ one }} {{ two }} {{ hint }}", inner="mlp", latent_steps=2
    )
    graph.add_text_source("rule", "no „quotes“, \x1f and\u2028 lines")
    graph.add_text_source("facts", lambda sample: sample["question"].upper())
    graph.connect("rule", "two")
    graph.connect("facts", "two")
    graph.connect("one", "two", link="linear_residual", residual="projection")
    graph.connect("one", "three", link="recursive", share="out", expansion=1)
    graph.connect("two", "three", link="recursive", share="out", expansion=1)
    graph.feedback("three", "one.back", link="linear", init="ridge", norm="none")
    return graph.output("three")


SAMPLES = [{"question": question, "hint": "h"} for question in QUESTIONS]
FACTS = {"facts": lambda sample: sample["question"].upper()}


@pytest.fixture(scope="module")
def system() -> lm.System:
    made = rich_graph().compile().load(seed=3)
    with torch.no_grad():  # no weight as it was drawn
        for parameter in made.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.01
            )
    return made


@pytest.fixture
def saved(system, tmp_path) -> Path:
    return system.save_pretrained(tmp_path / "team")


def load(folder: Path, **options: Any) -> lm.System:
    return lm.System.from_pretrained(folder, text_functions=FACTS, **options)


def weights(system: lm.System) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in system.link_state().items()}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- there and back ---------------------------------------------------------------------------


def test_a_team_comes_back_bit_for_bit(system, saved):
    again = load(saved)
    assert_equal(weights(system), weights(again))
    assert again.plan == system.plan and again.plan.digest == system.plan.digest
    assert again.plan.diff(system.plan) == []
    assert again.plan.graph == system.plan.graph
    assert again.link_ids() == system.link_ids()
    assert {"shared.thinking", "shared.out"} <= set(again.link_ids())


def test_a_team_that_came_back_writes_the_same_texts_and_messages(system, saved):
    options = {"max_new_tokens": 6, "record": ("messages",)}
    a, b = system.run(SAMPLES, **options), load(saved).run(SAMPLES, **options)
    assert a.texts == b.texts and a.token_ids == b.token_ids
    assert_equal(a.messages, b.messages)


def test_saving_what_was_loaded_gives_the_same_files(system, saved, tmp_path):
    again = load(saved).save_pretrained(tmp_path / "again")
    assert names(again) == names(saved)
    for name in names(saved):
        if (saved / name).is_file():
            assert (saved / name).read_bytes() == (again / name).read_bytes(), name


def test_prompts_are_files_with_their_exact_text(system, saved):
    for agent in system.plan.graph.agents:
        kept = (saved / "prompts" / f"{agent.name}.jinja").read_bytes().decode()
        assert kept == agent.prompt
    assert (
        saved / "prompts/two.system.jinja"
    ).read_bytes().decode() == "Be brief; {{ rule }}\nand — exact."


@pytest.mark.parametrize(
    "text", ["a\r\nb {{ question }}", "a\rb {{ question }}\r\n", "\ufeff{{ question }}\x85"]
)
def test_line_ends_of_a_prompt_survive(tmp_path, text):
    graph = lm.Graph("solo", inputs=["question"], rounds=1)
    graph.add_agent("alone", tiny("llama", 16), prompt=text, system=text)
    folder = graph.output("alone").compile().load().save_pretrained(tmp_path / "team")
    agent = lm.System.from_pretrained(folder).plan.graph.agent("alone")
    assert agent.prompt == agent.system == text


def test_the_folder_holds_links_and_text_only(system, saved):
    assert {path.name for path in saved.iterdir()} == PARTS
    size = sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())
    assert size < 4 * system.plan.n_parameters + 40_000
    assert set(load_file(saved / "links.safetensors")) == set(system.link_state())
    assert not any(path.name == "adapter_config.json" for path in saved.rglob("*"))
    assert not any(is_pickle(path) for path in saved.rglob("*") if path.is_file())


def is_pickle(path: Path) -> bool:
    if zipfile.is_zipfile(path) or path.suffix in (".pt", ".pth", ".bin", ".pkl", ".pickle"):
        return True
    data = path.read_bytes()
    if not data.startswith(b"\x80"):
        return False
    try:
        list(pickletools.genops(data))
    except Exception:
        return False
    return True


def test_the_pickle_check_sees_a_pickle(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "weights")
    assert is_pickle(tmp_path / "weights")


def test_the_manifest_and_card_say_what_is_inside(system, saved):
    manifest = json.loads((saved / "latentmas.json").read_text(encoding="utf-8"))
    assert (manifest["format"], manifest["version"]) == ("latentmas", 1)
    assert manifest["digest"] == system.plan.digest
    assert [link["id"] for link in manifest["links"]] == system.link_ids()
    widths = {facts["hidden_size"] for facts in manifest["facts"].values()}
    assert widths == {16, 32}
    card = (saved / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: latentmas\n")
    assert "```mermaid" in card and f"{system.plan.n_parameters:,}" in card
    for link in system.plan.links:
        assert f"`{link.id}`" in card
    for agent in system.plan.graph.agents:
        assert agent.name in card


def test_the_snippet_of_the_card_runs(tmp_path, monkeypatch):
    graph = lm.Graph("solo", inputs=["question"], rounds=1, latent_steps=2)
    graph.add_agent("one", tiny("llama", 16), prompt="{{ question }}")
    graph.add_agent("two", tiny("llama", 16), prompt="{{ one }}", max_new_tokens=2)
    graph.connect("one", "two")
    folder = graph.output("two").compile().load().save_pretrained(tmp_path / "team")
    (snippet,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    monkeypatch.chdir(folder)
    exec(snippet, {})


def test_bfloat16_backbones_and_reuse(system, saved):
    half = load(saved, dtype="bfloat16")
    assert half.backbone_of("one").dtype == torch.bfloat16
    assert_equal(weights(half), weights(system))
    twin = load(saved, reuse=system)
    assert twin.backbone_of("three") is system.backbone_of("three")
    assert twin.link("shared.out") is not system.link("shared.out")


def test_a_team_without_links_has_a_folder_too(tmp_path):
    twin = rich_graph().as_text(max_new_tokens=3).compile().load()
    assert twin.link_ids() == []
    again = load(twin.save_pretrained(tmp_path / "text"))
    assert again.run(SAMPLES).texts == twin.run(SAMPLES).texts


def test_a_text_function_must_be_given_again(saved):
    with pytest.raises(lm.LatentMASError, match="text source 'facts' has no function"):
        lm.System.from_pretrained(saved)


# --- writing ----------------------------------------------------------------------------------


def test_saving_over_a_team_replaces_it(system, saved):
    before = names(saved)
    other = rich_graph("other").compile().load(seed=4)
    for _ in range(2):
        assert other.save_pretrained(saved) == saved
    assert names(saved) == before
    again = load(saved)
    assert again.plan.graph.name == "other"
    assert_equal(weights(again), weights(other))


def test_prompts_of_agents_that_are_gone_do_not_stay(saved):
    graph = lm.Graph("solo", inputs=["question"], rounds=1)
    graph.add_agent("alone", tiny("llama", 16), prompt="{{ question }}")
    graph.output("alone").compile().load().save_pretrained(saved)
    assert names(saved) == PARTS | {"prompts/alone.jinja"}


@pytest.mark.parametrize("kind", ["other_things", "file"])
def test_other_things_are_never_written_over(system, tmp_path, kind):
    place = tmp_path / "mine"
    if kind == "file":
        place.write_text("keep")
    else:
        place.mkdir()
        (place / "thesis.txt").write_text("keep")
    before = names(tmp_path)
    with pytest.raises(lm.LatentMASError, match="choose another") as caught:
        system.save_pretrained(place)
    assert str(place) in str(caught.value)
    assert names(tmp_path) == before


def test_an_empty_folder_and_new_parents_are_fine(system, tmp_path):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "a" / "b"):
        assert_equal(weights(load(system.save_pretrained(str(place)))), weights(system))


def test_into_leaves_other_things_where_they_are(system, tmp_path):
    (tmp_path / "optimizer.pt").write_bytes(b"keep")
    save_system(system, tmp_path, into=True)
    assert {path.name for path in tmp_path.iterdir()} == PARTS | {"optimizer.pt"}
    assert (tmp_path / "optimizer.pt").read_bytes() == b"keep"
    assert_equal(weights(load(tmp_path)), weights(system))


def fail(*_: Any, **__: Any) -> None:
    raise OSError("no space left on device")


@pytest.mark.parametrize(
    "what", ["save_tensors", "model_card", "_manifest", "write_text_atomically"]
)
def test_a_failure_while_writing_leaves_the_old_team(system, saved, monkeypatch, what):
    before = {
        name: (saved / name).read_bytes() for name in names(saved) if (saved / name).is_file()
    }
    changed = rich_graph("changed").compile().load(seed=9)
    with monkeypatch.context() as patch:
        patch.setattr(f"latentmas.io.save.{what}", fail)
        with pytest.raises(OSError, match="no space"):
            changed.save_pretrained(saved)
    after = {name: (saved / name).read_bytes() for name in names(saved) if (saved / name).is_file()}
    assert after == before
    assert not [path for path in saved.rglob("*") if path.name.startswith(".")]
    assert_equal(weights(load(saved)), weights(system))


def test_links_that_are_not_finite_are_not_saved(saved, tmp_path):
    facts = {"facts": lambda sample: sample["question"]}
    broken = lm.System.from_pretrained(saved, text_functions=facts)
    next(broken.parameters()).data[0] = float("nan")
    with pytest.raises(lm.WeightsError, match=r"LM503 the team was not saved: .* not finite"):
        broken.save_pretrained(saved)
    lm.System.from_pretrained(saved, text_functions=facts)
    with pytest.raises(lm.ExecutionError, match=r"message 'round\d\..*' holds values that are not"):
        broken.run(SAMPLES, max_new_tokens=1)


def test_a_failure_while_writing_a_new_team_leaves_no_team(system, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("latentmas.io.save.save_tensors", fail)
        with pytest.raises(OSError, match="no space"):
            system.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists() or not any((tmp_path / "new").iterdir())
    with pytest.raises(lm.WeightsError, match="LM502"):
        load(tmp_path / "new")
    system.save_pretrained(tmp_path / "new")
    load(tmp_path / "new")


# --- reading: a folder that is no team --------------------------------------------------------


def edit(folder: Path, change: Any) -> None:
    path = folder / "latentmas.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def refused(folder: Path, code: str) -> str:
    with pytest.raises(lm.WeightsError) as caught:
        load(folder)
    assert str(caught.value).startswith(code), str(caught.value)
    return str(caught.value)


def test_agents_whose_names_differ_only_in_case_have_files_of_their_own(tmp_path):
    graph = lm.Graph("case", inputs=["question"], latent_steps=2)
    for name, slot in {
        "planner": "",
        "Planner": "{{ planner }}",
        "PLANNER": "{{ Planner }}",
    }.items():
        prompt = f"{name}: {slot} {{{{ question }}}}"
        graph.add_agent(name, tiny("llama", 16), prompt=prompt, system=f"You are {name}.")
    graph.connect("planner", "Planner")
    graph.connect("Planner", "PLANNER")
    graph.output("PLANNER")
    system = graph.compile().load(seed=1)
    folder = system.save_pretrained(tmp_path / "team")
    files = sorted(path.name for path in (folder / "prompts").iterdir())
    assert len({name.lower() for name in files}) == len(files) == 6
    assert "planner.jinja" in files and "planner.system.jinja" in files
    assert lm.System.from_pretrained(folder).plan == system.plan


@pytest.mark.parametrize("missing", ["latentmas.json", "links.safetensors", "prompts/one.jinja"])
def test_a_missing_file_is_named(saved, missing):
    (saved / missing).unlink()
    assert Path(missing).name in refused(saved, "LM502")


def test_a_folder_that_is_not_there(tmp_path):
    assert "nowhere" in refused(tmp_path / "nowhere", "LM502")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"format": "other"}', "[" * 5000, "\udcff"], ids=range(8)
)
def test_a_manifest_that_is_none(saved, text):
    (saved / "latentmas.json").write_bytes(text.encode(errors="surrogateescape"))
    assert "latentmas.json" in refused(saved, "LM502")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(version="2"),
        lambda data: data.update(version=True),
        lambda data: data.update(extra=1),
        lambda data: data["graph"].update(agents=3),
        lambda data: data["graph"].update(agents=["x"]),
        lambda data: data["graph"].update(rounds="many"),
        lambda data: data["graph"]["agents"][0].update(prompt={"no": "file"}),
        lambda data: data["graph"]["edges"][2]["link"].update(kind="no_such_kind"),
        lambda data: data["graph"]["edges"][2]["link"].update(kind="../../evil"),
        lambda data: data["graph"]["edges"].pop(),
    ],
    ids=range(10),
)
def test_a_manifest_that_is_malformed(saved, change):
    edit(saved, change)
    with pytest.raises(lm.WeightsError, match=r"^LM50[12] "):
        load(saved)


def test_a_manifest_larger_than_any_is_not_read(saved):
    with (saved / "latentmas.json").open("a") as file:
        file.write(" " * (16 * 2**20 + 1))
    assert "larger" in refused(saved, "LM502")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(digest="0" * 64),
        lambda data: data["graph"].update(rounds=3),
        lambda data: data["graph"].update(name="renamed"),
        lambda data: next(iter(data["facts"].values())).update(num_layers=7),
    ],
    ids=["digest", "rounds", "name", "facts"],
)
def test_an_edited_manifest_is_refused(saved, change):
    edit(saved, change)
    message = refused(saved, "LM501")
    assert "edited" in message and "digest" in message


def test_an_edited_prompt_is_refused(saved):
    (saved / "prompts/three.jinja").write_text("{{ one }} {{ two }} {{ hint }}!")
    refused(saved, "LM501")


def test_names_from_other_files_must_not_leave_the_folder(system, saved, tmp_path):
    (tmp_path / "secret.jinja").write_text(system.plan.graph.agent("one").prompt)
    for name in ("../secret.jinja", str(tmp_path / "secret.jinja"), "prompts/../../secret.jinja"):
        edit(
            saved, lambda data, name=name: data["graph"]["agents"][0].update(prompt={"file": name})
        )
        assert "leaves the folder" in refused(saved, "LM502")


def test_a_link_in_the_file_system_must_not_leave_the_folder(system, saved, tmp_path):
    (tmp_path / "secret.jinja").write_text(system.plan.graph.agent("one").prompt)
    (saved / "prompts/one.jinja").unlink()
    (saved / "prompts/one.jinja").symlink_to(tmp_path / "secret.jinja")
    assert "points outside the folder" in refused(saved, "LM502")


# --- reading: weights -------------------------------------------------------------------------


def read(path: Path) -> dict[str, torch.Tensor]:
    """Copies: `load_file` would map a file that is about to be written over."""
    return from_bytes(path.read_bytes())


def spoil(folder: Path, change: Any) -> None:
    state = read(folder / "links.safetensors")
    change(state)
    save_file(state, folder / "links.safetensors")


NAME = "shared.out.proj1.weight"


def set_value(state: dict[str, torch.Tensor], value: float) -> None:
    state[NAME][0, 0] = value


DAMAGE = {
    "missing": (lambda s: s.pop(NAME), [f"missing: {NAME}", "1 difference"]),
    "unexpected": (lambda s: s.update(more=torch.ones(2)), ["unexpected: more"]),
    "shape": (lambda s: s.update({NAME: torch.ones(3, 5)}), [NAME, "(3, 5)", "(32, 16)"]),
    "transposed": (lambda s: s.update({NAME: s[NAME].T.contiguous()}), [NAME, "(16, 32)"]),
    "nan": (lambda s: set_value(s, float("nan")), [NAME, "not finite"]),
    "infinite": (lambda s: set_value(s, float("inf")), [NAME, "not finite"]),
    "integer": (lambda s: s.update({NAME: torch.ones(32, 16, dtype=torch.int64)}), [NAME, "int64"]),
    "empty": (lambda s: s.clear(), ["missing: "]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights_are_refused_with_the_difference(saved, damage):
    change, words = DAMAGE[damage]
    spoil(saved, change)
    message = refused(saved, "LM503")
    assert all(word in message for word in words), message


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights_change_nothing_in_a_live_system(saved, damage):
    live = rich_graph().compile().load(seed=20)
    before = weights(live)
    spoil(saved, DAMAGE[damage][0])
    with pytest.raises(lm.WeightsError, match="LM503"):
        load_link_weights(live, saved)
    assert_equal(weights(live), before)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\xff" * 200, b"half"], ids=range(4))
def test_a_file_of_weights_that_cannot_be_read(saved, content):
    path = saved / "links.safetensors"
    path.write_bytes(path.read_bytes()[:-7] if content == b"half" else content)
    assert "links.safetensors" in refused(saved, "LM503")


def test_a_pickle_in_place_of_weights_is_not_opened(saved):
    torch.save(read(saved / "links.safetensors"), saved / "links.safetensors")
    refused(saved, "LM503")


def test_weights_go_into_a_live_system_in_its_own_type(system, saved):
    live = rich_graph().compile().load(seed=20)
    load_link_weights(live, saved)
    assert_equal(weights(live), weights(system))
    spoil(saved, lambda s: s.update({name: tensor.half() for name, tensor in s.items()}))
    load_link_weights(live, saved)
    assert {p.dtype for p in live.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in live.parameters())


def test_weights_of_another_team_are_refused(saved):
    graph = lm.Graph("pair", inputs=["question"], rounds=1)
    graph.add_agent("one", tiny("llama", 16), prompt="{{ question }}")
    graph.add_agent("two", tiny("llama", 16), prompt="{{ one }}")
    graph.connect("one", "two")
    other = graph.output("two").compile().load()
    with pytest.raises(lm.WeightsError, match="LM503"):
        load_link_weights(other, saved)


# --- reading: backbones -----------------------------------------------------------------------


def test_a_backbone_of_another_width_is_refused_with_the_difference(tmp_path):
    place = tmp_path / "model"
    graph = lm.Graph("solo", inputs=["question"], rounds=1, latent_steps=2)
    own = tiny_backbone("llama", 16, folder=place)
    graph.add_agent("one", own, prompt="{{ question }}")
    graph.add_agent("two", tiny("llama", 32), prompt="{{ one }}")
    graph.connect("one", "two")
    folder = graph.output("two").compile().load().save_pretrained(tmp_path / "team")
    load_system(folder)
    tiny_backbone("llama", 24, folder=place)
    message = refused(folder, "LM501")
    assert "16" in message and "24" in message and "backbones have changed" in message
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    with pytest.raises(lm.GraphError, match="LM201"):
        load(folder)
