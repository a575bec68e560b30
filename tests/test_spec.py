"""Declarations: prompts and their markers, graph files, the builder, the schema."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jinja2
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentmas import Backbone, Graph, GraphError, GraphSpec, prompt_file
from latentmas.atomic import write_text_atomically
from latentmas.prompts.render import (
    RESERVED,
    SlotMisuseError,
    placed_variables,
    prompt_variables,
    render_prompt,
)
from latentmas.spec import AgentSpec, EdgeSpec
from tests.strategies import info

FACTS = {"m": info()}


def agent(prompt: str, system: str | None = None) -> AgentSpec:
    return AgentSpec(name="a", backbone="b", prompt=prompt, system=system)


def pair(prompt: str, *feedback: str) -> Graph:
    """first → second.slot with the given prompt, and feedback edges to the named slots."""
    graph = Graph("pair", inputs=["question"], rounds=2)
    graph.add_agent("first", Backbone("m"), prompt="{{ question }}")
    graph.add_agent("second", Backbone("m"), prompt=prompt)
    graph.connect("first", "second.slot")
    for slot in feedback:
        graph.feedback("second", f"second.{slot}")
    return graph.output("second")


def codes(graph: Graph) -> list[str]:
    try:
        graph.compile(facts=FACTS)
    except GraphError as error:
        return [problem.code for problem in error.problems]
    return []


def test_rendering_puts_a_marker_where_a_slot_stands() -> None:
    rendered = render_prompt(
        agent("Q {{ q }} D {{ plan }}!", "Be {{ how }} {{ tip }}"),
        {"q": 1, "how": "brief"},
        ["plan", "tip"],
    )
    marker = {slot: text for text, slot in rendered.markers.items()}
    assert [tuple(turn) for turn in rendered.turns] == [
        ("system", f"Be brief {marker['tip']}"),
        ("user", f"Q 1 D {marker['plan']}!"),
    ]
    assert set(marker) == {"plan", "tip"}


def test_markers_differ_each_time() -> None:
    texts = {next(iter(render_prompt(agent("{{ s }}"), {}, ["s"]).markers)) for _ in range(50)}
    assert len(texts) == 50
    assert render_prompt(agent("x"), {}).markers == {}


@given(st.text(alphabet="{}%#<>:latent0 \n\\_q") | st.text())
def test_what_users_write_is_just_text(text: str) -> None:
    rendered = render_prompt(agent("{{ q }}|{{ s }}"), {"q": text}, ["s"])
    (marker,) = rendered.markers
    assert rendered.turns[0].content == f"{text}|{marker}"


@pytest.mark.parametrize(
    "text", ["{{ s }}", "{% raw %}", "{{ q.__class__ }}", "<<latent:0:0>>", "<<latent:"]
)
def test_user_text_that_looks_like_a_template_or_a_marker(text: str) -> None:
    rendered = render_prompt(agent("{{ q }}{{ s }}"), {"q": text}, ["s"])
    (marker,) = rendered.markers
    assert rendered.turns[0].content == text + marker


def test_white_space_is_kept() -> None:
    assert render_prompt(agent(" a \n\n"), {}).turns[0].content == " a \n\n"


def test_an_absent_slot_is_false_and_cannot_be_placed() -> None:
    guarded = agent("{% if s %}T {{ s }}{% else %}none{% endif %}")
    assert render_prompt(guarded, {}).turns[0].content == "none"
    assert render_prompt(guarded, {"s": "text"}).turns[0].content == "T text"
    assert "<<latent:" in render_prompt(guarded, {}, ["s"]).turns[0].content
    with pytest.raises(jinja2.UndefinedError, match="'s' is undefined"):
        render_prompt(agent("{{ s }}"), {})


def test_variables() -> None:
    spec = agent(
        "{% set x = 1 %}{{ x }}{% if fb %}{{ fb }}{% endif %}{% if seen %}!{% endif %}", "{{ q }}"
    )
    assert prompt_variables(spec) == {"fb", "q", "seen"}
    assert "fb" in placed_variables(spec)
    assert "seen" not in placed_variables(spec)
    assert (
        prompt_variables(agent("{% for i in range(3) %}{{ loop.index }}{{ i }}{% endfor %}"))
        == set()
    )
    assert {"range", "loop", "not", "inner"} <= RESERVED


@pytest.mark.parametrize(
    "access", ["question.__class__", "cycler.__init__.__globals__", "''.__class__"]
)
def test_templates_are_sandboxed(access: str) -> None:
    with pytest.raises(jinja2.exceptions.SecurityError):
        render_prompt(agent(f"{{{{ {access} }}}}"), {"question": "q"})
    assert "LM301" in codes(pair(f"{{{{ slot }}}}{{{{ {access} }}}}"))


MISUSES = [
    "|int",
    "|float",
    "|wordcount",
    "|length",
    "|truncate(5)",
    "|wordwrap(5)",
    "|e",
    "|reverse",
]
MISUSES += ["|tojson", "|list", "|upper", " == 2", ".foo", "[0]", "()", " * 2", " // 2", " in 'x'"]


@pytest.mark.parametrize("misuse", MISUSES)
def test_latents_can_only_be_placed(misuse: str) -> None:
    assert codes(pair(f"{{{{ slot{misuse} }}}}")) == ["LM303"]


def test_a_changed_marker_is_found_when_rendering_too() -> None:
    with pytest.raises(SlotMisuseError):
        render_prompt(agent("{{ slot|upper }}"), {}, ["slot"])


@pytest.mark.parametrize(
    "form", ["{{ slot }}{{ slot }}", "{{ 'a' ~ slot }}", "{{ slot|trim }}", "{{ slot or '' }}"]
)
def test_latents_can_be_placed_anyhow(form: str) -> None:
    assert codes(pair(form)) == []


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("{% if f %}{{ f }}{% endif %}{% if g %}{{ g }}{% endif %}", []),
        ("{% if f and g %}{{ f }}{{ g }}{% endif %}", []),
        (
            "{% if f %}{{ f }}{{ g }}{% endif %}",
            [],
        ),  # empty together in round 1, full together later
        ("{% if f or g %}{{ f }}{{ g }}{% endif %}", []),
        ("{{ f }}{{ g }}", ["LM302", "LM302"]),
        ("{% if not f %}{{ g }}{% else %}{{ f }}{% endif %}", ["LM302"]),
        ("{% if f %}{{ f }}{% else %}{{ g }}{% endif %}", ["LM302"]),
    ],
)
def test_round_one_is_rendered_with_every_feedback_slot_empty(
    prompt: str, expected: list[str]
) -> None:
    assert codes(pair("{{ slot }}" + prompt, "f", "g")) == expected


def test_yaml_and_json_files(tmp_path: Path) -> None:
    graph = pair("line one\n  {{ slot }}\n\ttabbed: yes\n", "f").replace(name="on: 'x' #1")
    for name in ("g.yaml", "g.YML", "deep/er/g.json"):
        assert Graph.load(graph.save(tmp_path / name)) == graph
    assert "prompt: |" in pair("a\nb {{ slot }}").save(tmp_path / "block.yaml").read_text(
        encoding="utf-8"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "block.yaml",
        "deep",
        "g.YML",
        "g.yaml",
    ]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_every_text_survives_a_file(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, text: str
) -> None:
    spec = GraphSpec(
        name=text, agents=(agent(text + "\n" + text, text), agent("a\x85b\u2028c\n" + text))
    )
    path = tmp_path_factory.getbasetemp() / f"texts.{suffix}"
    assert GraphSpec.load(spec.save(path)) == spec


@pytest.mark.parametrize(
    ("text", "key"),
    [("name: a\nname: b\n", "name"), ("agents:\n- name: a\n  prompt: x\n  prompt: y\n", "prompt")],
)
def test_a_key_stands_once(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "g.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(GraphError, match=f"LM100.*duplicate key '{key}'.*line"):
        GraphSpec.load(tmp_path / "g.yaml")


def test_prompts_and_models_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jinja").write_text("Plan é {{ q }}\n", encoding="utf-8")
    text = "backbones: {k: ./tiny, h: org/hub}\n"
    text += "agents: [{name: a, backbone: k, prompt_file: p/a.jinja}]\n"
    (tmp_path / "g.yaml").write_text(text, encoding="utf-8")
    spec = GraphSpec.load(tmp_path / "g.yaml")
    assert spec.agent("a").prompt == "Plan é {{ q }}\n" == prompt_file(tmp_path / "p" / "a.jinja")
    assert spec.backbones["k"].source == str(tmp_path / "tiny")
    assert spec.backbones["h"].source == "org/hub"
    with pytest.raises(KeyError):
        spec.agent("b")


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/passwd", "link.txt", "none.txt"])
def test_prompt_files_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.txt").write_text("s", encoding="utf-8")
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "link.txt").symlink_to(tmp_path / "secret.txt")
    data = {"agents": [{"name": "a", "backbone": "b", "prompt_file": name}]}
    (tmp_path / "g" / "g.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(GraphError, match=f"LM100  agent a: .*{re.escape(name)}"):
        GraphSpec.load(tmp_path / "g" / "g.json")


def test_declarations_are_frozen_and_strict() -> None:
    spec = pair("{{ slot }}").spec()
    with pytest.raises(ValueError, match="frozen"):
        spec.rounds = 9  # type: ignore[misc]
    with pytest.raises(GraphError, match=r"(?s)unknown key 'rouns'.*did you mean 'rounds'"):
        GraphSpec.parse({"rouns": 3})
    with pytest.raises(
        GraphError, match=r"edges.0.link.options.*must be a plain value, found list"
    ):
        GraphSpec.parse({"edges": [{"source": "a", "target": "b", "link": {"options": {"x": []}}}]})
    assert EdgeSpec(source="a", target="b").id == "a->b.?"
    assert spec.replace(rounds=5).fingerprint != spec.fingerprint
    assert spec.replace(rounds=5).replace(rounds=2).fingerprint == spec.fingerprint


def test_the_builder_copies() -> None:
    graph = pair("{{ slot }}")
    assert graph.copy() == graph == pair("{{ slot }}")
    assert graph.replace(rounds=5) != graph
    copy = graph.copy()
    copy.add_agent("x", "m", prompt="x")
    copy.connect("x", "second")
    copy.output("x")
    assert graph == pair("{{ slot }}")
    assert "first, second; 1 edges" in repr(graph)
    with pytest.raises(TypeError):
        hash(graph)
    planner = graph.add_agent("planner", Backbone("m"), prompt="x")
    assert graph.connect(planner, planner.slot("x"), expansion=2).slot == "x"
    assert list(graph.spec().backbones) == ["m"], "an equal backbone is declared once"
    graph.add_agent("other", Backbone("hub/m", dtype="float32"), prompt="x")
    assert list(graph.spec().backbones) == ["m", "m-2"]


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write_text_atomically(tmp_path / "new" / "x.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text_atomically(path, "half \ud800")
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_the_schema_knows_every_field(tmp_path: Path) -> None:
    schema = json.loads(json.dumps(GraphSpec.json_schema()))
    assert set(schema["properties"]) == set(GraphSpec.model_fields)
    declared = schema["$defs"]["AgentSpec"]
    assert set(declared["properties"]) == {*AgentSpec.model_fields, "prompt_file"}
    assert declared["required"] == ["name", "backbone"]
    assert schema["additionalProperties"] is declared["additionalProperties"] is False
    for short in (
        schema["properties"]["output"],
        schema["properties"]["backbones"]["additionalProperties"],
    ):
        assert {"type": "string"} in short["anyOf"]


def test_the_schema_accepts_graph_files(tmp_path: Path) -> None:
    data = json.loads(pair("{{ slot }}").save(tmp_path / "g.json").read_text(encoding="utf-8"))
    short = {
        "backbones": {"k": "./tiny"},
        "agents": [{"name": "a", "backbone": "k", "prompt_file": "p"}],
    }
    for good in (data, pair("x").spec().model_dump(mode="json"), short):
        jsonschema.validate(good, GraphSpec.json_schema())
    for bad in (data | {"rouns": 1}, {"agents": [{"name": "a", "backbone": "k"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, GraphSpec.json_schema())
