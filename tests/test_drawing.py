"""Plans as pictures: Mermaid and SVG."""

from __future__ import annotations

import itertools
import random
import re
import runpy
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import latentmas as lm

GOLDEN: dict[str, Any] = runpy.run_path(str(Path(__file__).parent / "golden" / "rewrite.py"))
WIDE, SLIM, FACTS = GOLDEN["WIDE"], GOLDEN["SLIM"], GOLDEN["FACTS"]
PLANS: dict[str, lm.Plan] = GOLDEN["plans"]()
SVG = "{http://www.w3.org/2000/svg}"

Point = tuple[float, float]
Area = tuple[float, float, float, float]


def random_plan(count: int, seed: int) -> lm.Plan:
    """A connected team of `count` agents with text, feedback and an outside source."""
    dice = random.Random(seed)
    pairs = {(i, j) for j in range(count) for i in range(j) if dice.random() < 1.8 / count}
    pairs |= {
        (i, min(count - 1, i + dice.randint(1, 4)))
        for i in range(count - 1)
        if not any(source == i for source, _ in pairs)
    }
    drawn = [sorted(dice.choices(range(count), k=2)) for _ in range(1 + count // 4)]
    back = {(late, early) for early, late in drawn if early < count - 1 or late == early}
    graph = lm.Graph(f"random {count}", inputs=["question"], rounds=2, latent_steps=4)
    for j in range(count):
        slots = "".join(f"{{{{ f{s} }}}} " for s, t in sorted(pairs) if t == j)
        slots += "".join(
            f"{{% if b{s} %}}{{{{ b{s} }}}}{{% endif %}} " for s, t in sorted(back) if t == j
        )
        prompt = slots + "{{ notes }} {{ question }}"
        graph.add_agent(f"a{j}", dice.choice([WIDE, SLIM]), prompt=prompt)
    graph.add_text_source("notes", "be brief")
    for j in range(count):
        graph.connect("notes", f"a{j}", link="text")
    for s, t in sorted(pairs):
        graph.connect(f"a{s}", f"a{t}.f{s}", link=dice.choice(["recursive", "text"]))
    for s, t in sorted(back):
        graph.feedback(f"a{s}", f"a{t}.b{s}", link=dice.choice(["recursive", "text"]))
    return graph.output(f"a{count - 1}").compile(facts=FACTS)


def odd_plan() -> lm.Plan:
    """A team whose texts are full of what XML and Mermaid care about."""
    graph = lm.Graph(
        "a \"b\" <c> & 'd' #quot; ]]> \x07\n--- é日本",
        inputs=["question"],
        backbones={'<k> "&`;': lm.Backbone('<s>&amp; "[/]" `#1;', revision="<r>")},
    )
    long = "a_name_that_goes_on_and_on_" * 3
    for name in ("end", "style", long):
        graph.add_agent(name, '<k> "&`;', prompt="{{ question }}{{ before }}")
    graph.add_text_source("note", "<x> & {{ y }}")
    graph.connect("note", "end.before", link="text")
    graph.connect("end", "style.before", share='<&">')
    graph.connect("style", f"{long}.before")
    facts = {'<k> "&`;': FACTS["example/slim"]}
    return graph.output(long).compile(facts=facts)


# --- Mermaid ----------------------------------------------------------------------------------


def test_mermaid_shows_agents_edges_and_the_output() -> None:
    text = PLANS["sequential"].mermaid()
    assert text.startswith('---\ntitle: "sequential"\n---\nflowchart LR\n')
    assert 'a0["planner<br/><small>wide<br/>K = 32</small>"]' in text
    assert 'a0 -->|"2048→1536"| a1' in text
    assert 'a2 -.->|"2048→2048"| a0' in text
    assert "stroke-dasharray:8 4" in text
    assert "style a2 stroke-width:4px" in text
    assert "class a0,a2 b0" in text


def test_mermaid_tells_text_edges() -> None:
    text = lm.templates.distillation(expert=WIDE, learner=SLIM, link="text")
    lines = text.compile(facts=FACTS).mermaid().splitlines()
    assert '  a0 -.->|"text"| a1' in lines
    assert any("stroke-dasharray:2 4" in line for line in lines)


def test_mermaid_labels_cannot_end_early() -> None:
    text = odd_plan().mermaid()
    body = text.split("---\n", 2)[2]
    for line in body.splitlines():
        assert line.count('"') in (0, 2), line
        inside = re.sub(r"</?small>|<br/>|#\d+;|[-.]*>", "", line)
        assert not set("<>&`#") & set(inside.split('"')[1] if '"' in inside else ""), line


# --- SVG --------------------------------------------------------------------------------------


def test_svg_is_xml_with_a_title_and_a_description() -> None:
    root = ElementTree.fromstring(PLANS["mixture"].svg())
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    ids = (root.get("aria-labelledby") or "").split()
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert description is not None
    assert ids == [title.get("id"), description.get("id")]
    assert title.text == "mixture"
    assert "summarizer to code (2048→2048, next round)" in (description.text or "")
    assert "prefers-color-scheme:dark" in "".join(root.itertext())


def test_svg_colours_shared_backbones_alike_and_marks_the_output() -> None:
    root = ElementTree.fromstring(PLANS["mixture"].svg())
    style = {name: kind for name, kind, _ in agents_of(root)}
    assert style["math"] == style["science"] == "box b0"
    assert style["code"] == "box b1"
    assert style["summarizer"] == "box b1 output"
    words = "".join(root.itertext())
    assert "slim: example/slim (llama, width 1536, 16 layers, loaded once for 2 agents)" in words


def test_svg_tells_the_kinds_of_edges() -> None:
    graph = lm.templates.sequential(planner=WIDE, critic=SLIM, solver=WIDE)
    for team, kinds in (
        (graph, ["edge", "edge", "edge feedback"]),
        (graph.as_text(), ["edge text", "edge text", "edge text feedback"]),
    ):
        root = ElementTree.fromstring(team.compile(facts=FACTS).svg())
        assert [path.get("class") for path in edges_of(root)] == kinds


def test_odd_texts_are_escaped() -> None:
    plan = odd_plan()
    root = ElementTree.fromstring(plan.svg())
    title = root.find(f"{SVG}title")
    assert title is not None
    assert title.text == "a \"b\" <c> & 'd' #quot; ]]> \ufffd\ufffd--- é日本"
    assert any('<&">' in (text.text or "") for text in root.iter(f"{SVG}text"))


def test_drawings_are_the_same_each_time_and_carry_their_own_style() -> None:
    plan = PLANS["sequential"]
    assert plan.svg() == lm.Plan.from_json(plan.to_json()).svg()
    key = f"#lm{plan.digest[:8]} "
    style = plan.svg().split("<style>")[1].split("</style>")[0]
    rules = [line for line in style.splitlines() if "{" in line and not line.startswith("@media")]
    assert all(part.startswith(key) for rule in rules for part in rule.split("{")[0].split(","))


CASES = [(1, 0), (2, 0), (5, 1), (12, 1), (12, 5), (25, 3), (40, 2)]


@pytest.mark.parametrize(("count", "seed"), CASES)
def test_nothing_overlaps_in_a_drawing(count: int, seed: int) -> None:
    """No box on a box, no edge through a box, no label on a box or label, all on the page."""
    root = ElementTree.fromstring(random_plan(count, seed).svg())
    boxes = {name: area for name, _, area in agents_of(root)}
    boxes["notes"] = next(
        rectangle(e) for e in root.iter(f"{SVG}rect") if e.get("class") == "source"
    )
    group = next(e for e in root.iter(f"{SVG}g") if e.get("transform"))
    labels = [rectangle(e) for e in group.findall(f"{SVG}rect")]
    solid = [*boxes.values(), *labels]
    for index, area in enumerate(solid):
        assert not any(overlap(area, other) for other in solid[:index])
    paths = edges_of(root)
    assert len(boxes) == count + 1
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    dx, dy = map(float, re.findall(r"[-\d.]+", group.get("transform", "")))
    for path in paths:
        for x, y in points_of(path.get("d", "")):
            assert 0 <= x + dx <= width
            assert 0 <= y + dy <= height
            inside = [
                n for n, a in boxes.items() if a[0] + 1 < x < a[2] - 1 and a[1] + 1 < y < a[3] - 1
            ]
            assert not inside, (path.get("d"), inside)


@pytest.mark.parametrize("name", sorted(PLANS))
def test_every_edge_of_a_template_shows_its_widths(name: str) -> None:
    plan = PLANS[name]
    root = ElementTree.fromstring(plan.svg())
    shown = [e.text for e in root.iter(f"{SVG}text") if e.get("class") == "label mute"]
    assert len(shown) == len(plan.graph.edges)


def test_drawing_chooses_the_form_by_the_suffix(tmp_path: Path) -> None:
    plan = PLANS["deliberation"]
    assert plan.draw(tmp_path / "team.svg").read_text(encoding="utf-8") == plan.svg()
    assert plan.draw(tmp_path / "team.mmd").read_text(encoding="utf-8") == plan.mermaid()
    with pytest.raises(lm.PlanError, match=r"\.svg or \.mmd"):
        plan.draw(tmp_path / "team.png")
    assert set(plan._repr_mimebundle_()) == {"image/svg+xml", "text/plain"}


# --- reading a drawing ------------------------------------------------------------------------


def rectangle(element: ElementTree.Element) -> Area:
    x, y, w, h = (float(element.get(key, 0)) for key in ("x", "y", "width", "height"))
    return x, y, x + w, y + h


def agents_of(root: ElementTree.Element) -> Iterator[tuple[str, str, Area]]:
    """Name, class and area of each agent's box."""
    for group in root.iter(f"{SVG}g"):
        box, text = group.find(f"{SVG}rect"), group.find(f"{SVG}text")
        if box is not None and text is not None and "box" in (box.get("class") or ""):
            yield text.text or "", box.get("class") or "", rectangle(box)


def edges_of(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [p for p in root.iter(f"{SVG}path") if p.get("marker-end")]


def overlap(a: Area, b: Area) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def points_of(data: str) -> Iterator[Point]:
    """Points along path data of M, L, C and Q."""
    at: Point = (0.0, 0.0)
    for command, text in re.findall(r"([MLCQ])([^MLCQ]*)", data):
        numbers = [float(n) for n in text.split()]
        corners = [at, *zip(numbers[::2], numbers[1::2], strict=True)]
        if command != "M":
            yield from (bezier(corners, i / 40) for i in range(41))
        at = corners[-1]


def bezier(corners: list[Point], t: float) -> Point:
    while len(corners) > 1:
        corners = [
            (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t)
            for a, b in itertools.pairwise(corners)
        ]
    return corners[0]
