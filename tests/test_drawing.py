"""Plans as pictures: SVG, PNG, HTML, Mermaid and DOT; nothing overlaps."""

from __future__ import annotations

import functools
import html
import itertools
import re
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font

import latentmas as lm
from tests.gallery import FACTS, GALLERY, PLANS, SLIM, WIDE, random_plan, ring, star
from tests.strategies import Facts, valid_graphs

SVG = "{http://www.w3.org/2000/svg}"

Point = tuple[float, float]
Area = tuple[float, float, float, float]
SIZES = [(1, 0), (2, 0), (5, 1), (12, 1), (12, 5), (25, 3), (40, 2), (40, 7)]


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


def mixed_plan() -> lm.Plan:
    """An agent that rolls, one that only writes, and one that answers and has tools."""
    graph = lm.Graph("mixed", inputs=["question"], rounds=1, latent_steps=5)
    graph.add_agent("thinker", SLIM, prompt="{{ question }}")
    graph.add_agent("writer", WIDE, prompt="{{ question }}", tools=["python"])
    graph.add_agent("solver", SLIM, prompt="{{ thinker }}{{ writer }}", tools=["search", "python"])
    graph.connect("thinker", "solver")
    graph.connect("writer", "solver", link="text")
    return graph.output("solver").compile(facts=FACTS)


def test_every_form_shows_tools_and_only_latent_steps_that_are_rolled(tmp_path: Path) -> None:
    plan = mixed_plan()
    root = ElementTree.fromstring(plan.svg())
    groups = [[e.text for e in group.iter(f"{SVG}text")] for group in root.iter(f"{SVG}g")]
    assert [lines for lines in groups if lines] == [
        ["thinker", "slim", "5 latent steps"],
        ["writer", "wide", "writes text", "tools: python"],
        ["solver", "slim", "writes the answer", "tools: search, python"],
    ]
    check_room(plan)
    rows = [line.split() for line in plan.summary().split("Links")[0].splitlines()]
    assert ["thinker", "slim", "5", "question", "-"] in rows
    assert ["writer", "wide", "-", "question", "python"] in rows
    assert '"writer" [label="writer\\nwide\\nwrites text\\ntools: python"' in plan.dot()
    assert (
        "solver<br/><small>slim<br/>writes the answer<br/>tools: search, python" in plan.mermaid()
    )
    page = re.sub(r"<[^>]+>", "|", plan.html())
    for cells in ("|thinker||slim||5||||", "|solver||slim||||decodes the answer||search, python|"):
        assert cells in page


def test_tools_are_not_mentioned_where_no_agent_has_any() -> None:
    plan = PLANS["sequential"]
    for text in (plan.svg(), plan.html(), plan.summary(), plan.mermaid(), plan.dot()):
        assert "tools" not in text


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


# --- room -------------------------------------------------------------------------------------

CASES: dict[str, Callable[[], lm.Plan]] = {
    **{name: lambda plan=plan: plan for name, plan in GALLERY.items()},
    **{f"{n} agents, seed {s}": lambda n=n, s=s: random_plan(n, s) for n, s in SIZES},
    "odd names": odd_plan,
    "tools and texts": lambda: mixed_plan(),
    "star of 40": lambda: star(39),
    "ring of 40": lambda: ring(40),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_overlaps_in_a_drawing(name: str) -> None:
    check_room(CASES[name]())


def test_a_long_team_is_drawn_from_top_to_bottom() -> None:
    """As wide as a page, and not 40 boxes beside each other."""
    root = ElementTree.fromstring(ring(40).svg())
    assert float(root.get("width", 0)) < 1600 < float(root.get("height", 0))
    tops = [area[1] for _, _, area in agents_of(root)]
    assert tops == sorted(tops)


@settings(max_examples=30)
@given(valid_graphs(max_agents=8))
def test_nothing_overlaps_in_any_drawing(drawn: tuple[lm.GraphSpec, Facts]) -> None:
    spec, facts = drawn
    check_room(lm.Graph.from_spec(spec).compile(facts=facts))


def check_room(plan: lm.Plan) -> None:
    """No box on a box, no edge through a box, no text on another or off the page.

    Texts are as wide as DejaVu Sans makes them, the widest of the fonts that drawings ask for.
    """
    root = ElementTree.fromstring(plan.svg())
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = boxes_of(root)
    assert len(boxes) == len(plan.graph.agents) + len(plan.graph.text_sources)
    texts = [(e.text or "", extent(e)) for e in root.iter(f"{SVG}text")]
    signs = [rectangle(e) for e in root.findall(f"{SVG}rect") if "b" in (e.get("class") or "")[:4]]
    for text, area in texts:
        assert area[0] >= 0 and area[1] >= 0 and area[2] <= width and area[3] <= height, text
    for (one, _), (two, _) in meetings(texts):
        raise AssertionError(f"{one!r} and {two!r} overlap")
    for one, two in meetings([("box", area) for area in boxes]):
        raise AssertionError(f"boxes overlap: {one}, {two}")
    for (one, a), (two, b) in meetings([*(("", area) for area in [*boxes, *signs]), *texts]):
        assert inside(a, b) or inside(b, a), one or two
    for path in edges_of(root):
        assert path.get("d", "").count("M") == 1
        segments = list(segments_of(path.get("d", "")))
        for x, y in (segments[0][0], segments[-1][-1]):
            assert any(inside((x, y, x, y), grown(box, 1)) for box in boxes), path.get("d")
        for corners in segments_of(path.get("d", "")):
            hull = hull_of(corners)
            assert hull[0] >= 0 and hull[1] >= 0 and hull[2] <= width and hull[3] <= height
            near = [grown(box, -1) for box in boxes if overlap(hull, grown(box, -1))]
            for point in (bezier(corners, i / 40) for i in range(41) if near):
                assert not [box for box in near if inside(point * 2, box)], path.get("d")


@pytest.mark.parametrize("name", sorted(GALLERY))
def test_every_edge_of_the_gallery_shows_its_widths(name: str) -> None:
    plan = GALLERY[name]
    assert len(labels_of(plan)) == len(plan.graph.edges)


def test_few_labels_find_no_room_in_a_crowd() -> None:
    for seed in range(4):
        plan = random_plan(40, seed)
        assert len(labels_of(plan)) >= 0.98 * len(plan.graph.edges)


# --- forms ------------------------------------------------------------------------------------


def test_drawing_chooses_the_form_by_the_suffix(tmp_path: Path) -> None:
    plan = PLANS["deliberation"]
    for suffix, text in {
        ".svg": plan.svg(),
        ".mmd": plan.mermaid(),
        ".dot": plan.dot(),
        ".html": plan.html(),
    }.items():
        assert plan.draw(tmp_path / f"team{suffix}").read_text(encoding="utf-8") == text
    with pytest.raises(lm.PlanError, match=r"'team.pdf'.*\.svg, \.html, \.png, \.mmd or \.dot"):
        plan.draw(tmp_path / "team.pdf")
    assert not list(tmp_path.glob("*.pdf"))


def test_notebooks_show_the_picture_and_fall_back_to_text() -> None:
    plan = PLANS["sequential"]
    assert plan._repr_svg_() == plan.svg()
    assert plan._repr_mimebundle_() == {"image/svg+xml": plan.svg(), "text/plain": plan.summary()}


@pytest.mark.parametrize("make", [odd_plan, lambda: random_plan(40, 2)], ids=["odd", "large"])
def test_png_is_a_picture_of_the_drawing(make: Callable[[], lm.Plan], tmp_path: Path) -> None:
    plan = make()
    data = plan.draw(tmp_path / "team.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    size = [int.from_bytes(data[i : i + 4], "big") for i in (16, 20)]
    root = ElementTree.fromstring(plan.svg())
    wanted = [2 * float(root.get(side, 0)) for side in ("width", "height")]
    assert size == pytest.approx(wanted, abs=2)


def test_a_wide_png_stays_a_size_that_viewers_open() -> None:
    data = ring(60).png()
    assert int.from_bytes(data[16:20], "big") <= 20_001


def test_png_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(lm.LatentMASError, match=r"pip install 'latentmas\[viz\]'"):
        PLANS["sequential"].png()


def test_dot_shows_agents_edges_and_the_output() -> None:
    text = PLANS["sequential"].dot()
    assert '"planner" [label="planner\\nwide\\nK = 32", fillcolor="#' in text
    assert '"planner" -> "critic" [label="2048→1536"];' in text
    assert 'style=dashed, constraint=false, arrowhead="onormal"];' in text
    assert next(line for line in text.splitlines() if "penwidth=4" in line).startswith('  "solver"')


def test_dot_strings_cannot_end_early() -> None:
    for line in odd_plan().dot().splitlines():
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
        assert '"' not in bare and "<" not in bare, line


def test_html_stands_alone_and_says_it_all_in_tables() -> None:
    plan = odd_plan()
    text = plan.html()
    assert not re.search(r"https?:|<script|src=|@import|url\((?!#)", text)
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text
    assert text.count("<table>") == 3
    for source in (edge.source for edge in plan.graph.edges):
        assert html.escape(source) in text
    assert "<k>" not in text and "<x>" not in text


# --- reading a drawing ------------------------------------------------------------------------


def rectangle(element: ElementTree.Element) -> Area:
    x, y, w, h = (float(element.get(key, 0)) for key in ("x", "y", "width", "height"))
    return x, y, x + w, y + h


def boxes_of(root: ElementTree.Element) -> list[Area]:
    """Areas of the boxes of agents and text sources."""
    found = [group.find(f"{SVG}rect") for group in root.iter(f"{SVG}g")]
    return [rectangle(e) for e in found if e is not None]


def labels_of(plan: lm.Plan) -> list[str | None]:
    root = ElementTree.fromstring(plan.svg())
    return [e.text for e in root.iter(f"{SVG}text") if e.get("class") == "label mute"]


def extent(element: ElementTree.Element) -> Area:
    """Where a text is."""
    kind = (element.get("class") or "").split()[0]
    size = {"title": 17.0, "name": 14.0}.get(kind, 11.0)
    width = advance(element.text or "", size, bold=kind in ("title", "name"))
    x, y = float(element.get("x", 0)), float(element.get("y", 0))
    left = x - width / 2 if kind in ("name", "note", "label") else x
    return left, y - 0.78 * size, left + width, y + 0.22 * size


def advance(text: str, size: float, *, bold: bool) -> float:
    return size * sum(ems(c, bold) for c in text)


@functools.cache
def ems(character: str, bold: bool) -> float:
    if unicodedata.east_asian_width(character) in "WF":  # not in the font
        return 1.0
    return FONTS[bold].load_char(ord(character)).linearHoriAdvance / 65536 / 100


FONTS = {
    bold: FT2Font(findfont(FontProperties(family="DejaVu Sans", weight=weight)))
    for bold, weight in ((False, "normal"), (True, "bold"))
}
for font in FONTS.values():
    font.set_size(100, 72)


def inside(area: Area, other: Area) -> bool:
    return other[0] <= area[0] <= area[2] <= other[2] and other[1] <= area[1] <= area[3] <= other[3]


def grown(area: Area, by: float) -> Area:
    return area[0] - by, area[1] - by, area[2] + by, area[3] + by


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


def meetings(things: list[tuple[str, Area]]) -> Iterator[tuple[tuple[str, Area], ...]]:
    """Pairs that overlap."""
    open_: list[tuple[str, Area]] = []
    for thing in sorted(things, key=lambda thing: thing[1]):
        open_ = [other for other in open_ if other[1][2] > thing[1][0]]
        yield from ((other, thing) for other in open_ if overlap(other[1], thing[1]))
        open_.append(thing)


def hull_of(corners: list[Point]) -> Area:
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def segments_of(data: str) -> Iterator[list[Point]]:
    """Corners of each segment of path data of M, L, C and Q."""
    at: Point = (0.0, 0.0)
    for command, text in re.findall(r"([MLCQ])([^MLCQ]*)", data):
        numbers = [float(n) for n in text.split()]
        corners = [at, *zip(numbers[::2], numbers[1::2], strict=True)]
        if command != "M":
            yield corners
        at = corners[-1]


def bezier(corners: list[Point], t: float) -> Point:
    while len(corners) > 1:
        corners = [
            (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t)
            for a, b in itertools.pairwise(corners)
        ]
    return corners[0]
