"""The model card: what it tells, that its example runs, and that what a person wrote stays."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import latentmas as lm
from latentmas.evaluation import wilson
from latentmas.io.card.card import merge_person, model_card
from latentmas.io.card.merge import BEGIN, END
from latentmas.runtime import TrainingRecord
from tests.teams import sequential, tiny


def published() -> lm.Plan:
    """A plan whose backbones have names of the hub."""
    backbones = {"a": lm.Backbone("org/small", revision="v1"), "b": lm.Backbone("org/wide")}
    graph = lm.Graph("team | of <two>", inputs=["question"], rounds=2, backbones=backbones)
    graph.add_agent("one", "a", prompt="{{ question }} {% if back %}{{ back }}{% endif %}")
    graph.add_agent("two", "b", prompt="{{ one }} {{ question }}")
    graph.connect("one", "two", link="linear")
    graph.feedback("two", "one.back")
    facts = {
        key: lm.BackboneInfo(model_type="llama", hidden_size=width, vocab_size=99, num_layers=2)
        for key, width in (("a", 16), ("b", 32))
    }
    return graph.output("two").compile(facts=facts)


HISTORY = [
    TrainingRecord(
        "outer",
        {"learning_rate": 0.0003, "per_device_train_batch_size": 8, "rounds": [1, 2]},
        [{"loss": 2.0}, {"loss": 0.51234}, {"eval_loss": 0.7, "eval_exact_match": 0.25}],
        {
            "links": ["outer.one->two.one"],
            "steps": 90,
            "seed": 7,
            "data": {"rows": 640, "digest": "d" * 64},
            "eval_data": {"rows": 40, "digest": "e" * 64},
            "versions": {"latentmas": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
            "hardware": {"processor": "some CPU", "devices": ["cpu", "cuda:0 (H200)"]},
            "links_before": "1" * 64,
            "links_after": "2" * 64,
        },
    )
]


def metadata(card: str) -> dict[str, Any]:
    found = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def section(card: str, title: str) -> str:
    return card.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_card_tells_models_links_recipe_results_and_what_it_was_made_with() -> None:
    scores = [lm.Score("exact_match", 0.9, n=100, data="MATH", settings={"rounds": 2})]
    card = model_card(published(), history=HISTORY, scores=scores, commits={"b": "c" * 40})
    told = metadata(card)
    assert told["base_model"] == ["org/small", "org/wide"]
    assert told["library_name"] == "latentmas" and "license" not in told
    assert "latent-multi-agent" in told["tags"]
    assert "# team | of <two>\n" in card and "```mermaid\n" in card
    assert "| `org/small` | `v1` | llama | 16 | one |" in card
    assert f"| `org/wide` | `{'c' * 40}` | llama | 32 | two |" in card
    assert "| `outer.one->two.one` | linear | 16 → 32 | 544 |" in card
    row = "| outer | 1 | 90 | 640 | 8 | 0.0003 | [1, 2] | 7 | 0.5123 |"
    assert row in section(card, "Recipe")
    results = section(card, "Results")
    assert "| exact_match | 0.9 | 0.8256 to 0.9448 | 100 | MATH | rounds 2 |" in results
    assert (
        "| exact_match | 0.25 | 0.1419 to 0.4019 | 40 | held-out rows of the outer loop |"
        in results
    )
    made = section(card, "Made with")
    assert "torch 2.13.0" in made and "cuda:0 (H200)" in made and f"`{'d' * 12}`" in made
    assert published().digest in made


def test_a_card_without_training_has_no_empty_sections() -> None:
    card = model_card(published())
    assert "## Recipe" not in card and "## Results" not in card


def test_an_interval_of_ones_own_is_shown_and_a_number_that_is_no_share_has_none() -> None:
    scores = [lm.Score("loss", 5.5, n=10), lm.Score("f1", 0.5, n=10, low=0.4, high=0.6)]
    results = section(model_card(published(), scores=scores), "Results")
    assert "| loss | 5.5 | – | 10 | – | – |" in results
    assert "| f1 | 0.5 | 0.4 to 0.6 | 10 | – | – |" in results


def test_wilson_is_the_interval_of_the_tables() -> None:
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for hits, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert [round(x, 4) for x in wilson(hits / n, n)] == [low, high]
    assert wilson(1.0, 20)[1] == 1.0
    for share, n in ((1.1, 3), (-0.1, 3), (0.5, 0)):
        with pytest.raises(ValueError, match="a share from 0 to 1"):
            wilson(share, n)


# --- the example ------------------------------------------------------------------------------


def run_example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (snippet,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    monkeypatch.chdir(folder)
    scope: dict[str, Any] = {}
    exec(snippet, scope)
    return scope


def test_the_example_runs_with_tools_and_text_sources_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lookup(text: str) -> str:
        """Look it up."""
        return text

    graph = lm.Graph("solo", inputs=["question", "hint"], rounds=1, latent_steps=2)
    graph.add_agent(
        "one",
        tiny("llama", 16),
        prompt="{{ question }} {{ hint }} {{ facts }}",
        tools=[lookup],
        max_new_tokens=2,
    )
    graph.add_text_source("facts", lambda sample: "f")
    graph.connect("facts", "one")
    folder = graph.output("one").compile().load().save_pretrained(tmp_path / "team")
    scope = run_example(folder, monkeypatch)
    assert set(scope["system"].tools) == {"lookup"}
    assert set(scope["system"].text_functions) == {"facts"}
    capsys.readouterr()


# --- what a person wrote ----------------------------------------------------------------------


def test_what_a_person_wrote_stays_when_the_card_is_made_anew(tmp_path: Path) -> None:
    system = sequential(rounds=2).compile().load()
    folder = system.save_pretrained(tmp_path / "team")
    path = folder / "README.md"
    front = "# mine\nlicense: mit\nlanguage:\n- en\n- de\n"
    text = path.read_text().replace("tags:\n", f"{front}tags:\n- math\n", 1)
    text = text.replace(BEGIN, f"Read me first.\n\n{BEGIN}") + "\n## Thanks\n\nTo all.\n"
    path.write_text(text.replace("weights", "WEIGHTS"))  # changes of what is generated go
    system.save_pretrained(folder)
    card = path.read_text()
    told = metadata(card)
    assert told["license"] == "mit" and told["language"] == ["en", "de"] and "# mine\n" in card
    assert told["tags"] == ["latent-multi-agent", "latentmas-recursive", "math"]
    assert card.index("Read me first.") < card.index(BEGIN) < card.index("# sequential")
    assert card.endswith(f"{END}\n\n## Thanks\n\nTo all.\n")
    assert "WEIGHTS" not in card
    system.save_pretrained(folder)
    assert path.read_text() == card


def test_a_card_without_marks_is_a_persons_as_a_whole() -> None:
    made = model_card(published())
    for old in ("# My own\n\nwords", f"# My own\n{BEGIN}\nwords", f"# My own\n{END}\nwords{BEGIN}"):
        card = merge_person(made, [old])
        assert card.index("# My own") < card.index("words") < card.index(BEGIN)
        assert card.count(BEGIN) == card.count(END) == 1
        assert merge_person(made, [card]) == card


def test_two_older_cards_both_keep_their_metadata() -> None:
    here = "---\nlicense: mit\n---\nHere.\n"
    there = "---\nlicense: gpl\nlanguage: en\n---\nThere.\n"
    card = merge_person(model_card(published()), [here, there])
    assert metadata(card)["license"] == "mit" and metadata(card)["language"] == "en"
    assert "Here." in card and "There." not in card


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=80)


@given(before=TEXT, after=TEXT, license=st.sampled_from(("mit", "apache-2.0", "«own»")))
def test_any_text_outside_of_the_marks_stays(before: str, after: str, license: str) -> None:
    made = model_card(published())
    old = merge_person(made, [f"---\nlicense: {license}\n---\n\n{before}\n{BEGIN}\n{END}\n{after}"])
    assert merge_person(made, [old]) == old
    if BEGIN not in before + after and END not in before + after:
        assert before.strip() in old and after.strip() in old
    assert metadata(old)["license"] == license


def test_a_name_cannot_end_what_is_generated() -> None:
    graph = lm.Graph(f"x {END} <!-- y", inputs=["question"], rounds=1)
    graph.add_agent("one", lm.Backbone("a/b"), prompt="{{ question }}")
    facts = {"a/b": lm.BackboneInfo(model_type="x", hidden_size=8, vocab_size=9, num_layers=1)}
    card = model_card(graph.output("one").compile(facts=facts))
    assert card.count(END) == 1 and card.count("<!--") == 2


def test_metadata_that_is_no_yaml_does_no_harm() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
    )
    for front in ("tags: [", "tags: 3", "x: {", f"{bomb}tags: [*u]", "tags: [1, [2]]"):
        card = merge_person(model_card(published()), [f"---\n{front}\n---\nMine.\n"])
        assert "Mine." in card and card.startswith("---\nlibrary_name: latentmas\n")
