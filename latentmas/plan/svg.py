"""A plan as an SVG picture, by hand: no dependency, light and dark, fit for screen readers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from latentmas.plan._drawing.labels import HEIGHT, label_spots
from latentmas.plan._drawing.layout import Box, arrange, layers
from latentmas.plan._drawing.pen import Pen
from latentmas.plan._drawing.routes import Geometry, route
from latentmas.plan._drawing.words import backbone_of, link_of, shade, width_label
from latentmas.plan._drawing.xml import length, mark, shorten, tag
from latentmas.plan.plan import Plan
from latentmas.spec import TEXT, EdgeSpec

__all__ = ["to_svg"]

HEAD, ROW, PAD, STROKE_COLUMN = 66.0, 21.0, 20.0, 120.0

_STYLE = """\
text{font-family:system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;fill:#1b1f24}
.paper{fill:#ffffff}
.title{font-size:17px;font-weight:600}
.name{font-size:14px;font-weight:600;text-anchor:middle}
.fact{font-size:11px}
.fact.mid,.label{font-size:11px;text-anchor:middle}
.mute{fill:#57606a}
.box{stroke-width:1.5}
.output{stroke-width:4}
.source{fill:#f3f4f6;stroke:#8b949e}
.edge,.bold{fill:none;stroke:#57606a;stroke-width:1.6}
.bold{stroke-width:3}
.text{stroke-dasharray:1.5 4.5;stroke-linecap:round;stroke-width:2.2}
.feedback{stroke-dasharray:8 5}
.text.feedback{stroke-dasharray:9 5 1 5}
.tip{fill:#57606a}"""

_DARK = """\
text{fill:#e6edf3}
.paper{fill:#0d1117}
.mute,.tip{fill:#9da7b3}
.source{fill:#21262d;stroke:#6e7681}
.edge,.bold{stroke:#9da7b3}"""

_STROKES = {
    "edge": "latent",
    "edge text": "text",
    "edge feedback": "next round",
    "edge text feedback": "text, next round",
}


def to_svg(plan: Plan) -> str:
    """The plan as an SVG document.

    Columns are the layers of the forward edges, colours are backbones. Latent edges are solid and
    carry their widths, text edges dotted, feedback edges dashed and led along the lower margin; a
    bold border marks the agent that decodes the answer. Hovering shows the details.
    """
    edges = sorted(plan.graph.edges, key=lambda edge: edge.delay)
    ends = [(edge.source, edge.target) for edge in edges]
    forward = sum(not edge.delay for edge in edges)
    boxes = _boxes(plan, edges)
    labels = [width_label(plan, edge) for edge in edges]
    widths = [length(label, 11) + 10.0 for label in labels]
    geometry = route(boxes, arrange(boxes, ends[:forward]), ends[forward:], widths)
    spots = label_spots(geometry.pens, widths, boxes.values())
    key = f"lm{plan.digest[:8]}"
    body = [
        *(_line(plan, edge, pen, key) for edge, pen in zip(edges, geometry.pens, strict=True)),
        *(_node(plan, box) for box in boxes.values()),
        *(_label(*item) for item in zip(labels, widths, spots, strict=True)),
    ]
    return _document(plan, key, geometry, body)


# --- boxes ------------------------------------------------------------------------------------


def _boxes(plan: Plan, edges: Sequence[EdgeSpec]) -> dict[str, Box]:
    """A box for each agent and text source, in its layer; agents of a layer are equally wide."""
    names = [agent.name for agent in plan.graph.agents]
    sources = [source.name for source in plan.graph.text_sources]
    forward = [(edge.source, edge.target) for edge in edges if not edge.delay]
    depth = layers([*names, *sources], forward, late=sources)
    widths: dict[int, float] = {}
    for name in names:
        wide = max(length(_short(name), 16), *(length(fact, 11) for fact in _facts(plan, name)))
        widths[depth[name]] = max(widths.get(depth[name], 104.0), wide + 24.0)
    boxes = {}
    for name in names:
        ends = max(sum(getattr(e, end) == name for e in edges) for end in ("source", "target"))
        boxes[name] = Box(name, widths[depth[name]], max(62.0, 10.0 * ends + 14.0), depth[name])
    for name in sources:
        boxes[name] = Box(name, length(_short(name), 11) + 22.0, 26.0, depth[name])
    return boxes


def _short(name: str) -> str:
    return shorten(name, 28)


def _facts(plan: Plan, agent: str) -> tuple[str, str]:
    steps = plan.graph.steps_of(plan.graph.agent(agent))
    return _short(backbone_of(plan, agent)[0]), f"{steps} latent step{'s' * (steps != 1)}"


def _node(plan: Plan, box: Box) -> str:
    if any(source.name == box.name for source in plan.graph.text_sources):
        return _source(box)
    facts, output = _facts(plan, box.name), box.name == plan.output
    tip = "; ".join([f"{box.name}: {facts[0]}", facts[1], *["decodes the answer"] * output])
    style = f"box b{list(plan.backbones).index(backbone_of(plan, box.name)[0])}"
    words = [("name", _short(box.name)), ("fact mid", facts[0]), ("fact mid", facts[1])]
    return _group(
        tip,
        _rect(box, style + " output" * output, rx=9),
        *(
            tag("text", mark(text), class_=kind, x=box.middle, y=box.y - 11 + 17 * i)
            for i, (kind, text) in enumerate(words)
        ),
    )


def _source(box: Box) -> str:
    text = tag("text", mark(_short(box.name)), class_="fact mid", x=box.middle, y=box.y + 4)
    return _group(f"{box.name}: text from outside", _rect(box, "source", rx=13), text)


def _rect(box: Box, style: str, rx: int) -> str:
    corner, size = _at(box.x, box.top), _size(box.width, box.height)
    return tag("rect", class_=style, **corner, **size, rx=rx)


def _at(x: float, y: float) -> dict[str, Any]:
    return {"x": x, "y": y}


def _size(width: float, height: float) -> dict[str, Any]:
    return {"width": width, "height": height}


def _group(tip: str, *parts: str) -> str:
    return tag("g", tag("title", mark(tip)) + "".join(parts))


# --- edges ------------------------------------------------------------------------------------


def _line(plan: Plan, edge: EdgeSpec, pen: Pen, key: str) -> str:
    link = link_of(plan, edge)
    what = f"{link.kind}, {link.n_parameters:,} parameters" if link else TEXT
    when = "; used in the next round" if edge.delay else ""
    path = tag("path", class_=_style(edge), marker_end=f"url(#{key}-tip)", d=" ".join(pen.path))
    return _group(f"{edge.id}: {what}{when}", path)


def _style(edge: EdgeSpec) -> str:
    return "edge" + " text" * (edge.link.kind == TEXT) + " feedback" * bool(edge.delay)


def _label(text: str, width: float, spot: tuple[float, float] | None) -> str:
    if spot is None:  # no free place; the tooltip of the edge says it
        return ""
    x, y = spot
    corner, size = _at(x - width / 2, y - HEIGHT / 2), _size(width, HEIGHT)
    paper = tag("rect", class_="paper", **corner, **size, rx=3)
    return paper + tag("text", mark(text), class_="label mute", x=x, y=y + 4)


# --- page -------------------------------------------------------------------------------------


def _document(plan: Plan, key: str, geometry: Geometry, body: Sequence[str]) -> str:
    name, facts = shorten(plan.graph.name, 80), _subtitle(plan)
    backbones, strokes = _backbone_lines(plan), _strokes(plan)
    legend = HEAD + geometry.bottom - geometry.top + PAD + 14
    words = [length(name, 18), length(facts, 11), *(length(t, 11) + 24 for t in backbones)]
    width: float = max(
        geometry.width, max(words) + 2 * PAD, STROKE_COLUMN * (len(strokes) + 1) + 2 * PAD
    )
    height = legend + ROW * (len(backbones) + 1) - 4
    left, down = (width - geometry.width) / 2, HEAD - geometry.top
    parts = [
        tag("title", mark(plan.graph.name), id=f"{key}-t"),
        tag("desc", mark(_description(plan)), id=f"{key}-d"),
        _css(plan, key),
        _tip(key),
        tag("rect", class_="paper", width=width, height=height, rx=8),
        tag("text", mark(name), class_="title", x=PAD, y=28),
        tag("text", mark(facts), class_="fact mute", x=PAD, y=46),
        tag(
            "g",
            "\n".join(["", *filter(None, body), ""]),
            transform=f"translate({left:.1f} {down:.1f})",
        ),
        *_legend(backbones, strokes, legend),
    ]
    names = {"role": "img", "aria_labelledby": f"{key}-t {key}-d"}
    view = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width:.0f} {height:.0f}"}
    inner = "\n".join(["", *parts, ""])
    return tag("svg", inner, id=key, **view, **_size(width, height), **names) + "\n"


def _tip(key: str) -> str:
    """The head of an arrow."""
    path = tag("path", class_="tip", d="M0 0.8L10 5L0 9.2z")
    size: dict[str, str | float] = {"markerWidth": 8, "markerHeight": 8, "refX": 9, "refY": 5}
    view = {"viewBox": "0 0 10 10", "markerUnits": "userSpaceOnUse", "orient": "auto"}
    return tag("defs", tag("marker", path, id=f"{key}-tip", **view, **size))


def _subtitle(plan: Plan) -> str:
    rounds = plan.graph.rounds
    parts = [f"{rounds} round{'s' * (rounds != 1)}", f"{plan.n_parameters:,} link parameters"]
    if plan.graph.inputs:
        parts.append(f"inputs: {shorten(', '.join(plan.graph.inputs), 60)}")
    return " · ".join(parts)


def _description(plan: Plan) -> str:
    edges = "; ".join(
        f"{e.source} to {e.target} ({width_label(plan, e)}{', next round' * e.delay})"
        for e in plan.graph.edges
    )
    agents = ", ".join(agent.name for agent in plan.graph.agents)
    return f"Agents: {agents}. Edges: {edges or 'none'}. {plan.output} decodes the answer."


def _css(plan: Plan, key: str) -> str:
    """Rules that hold inside this drawing only, as several may stand on one page."""
    light, dark = _STYLE.splitlines(), _DARK.splitlines()
    for index in range(len(plan.backbones)):
        for rules, (fill, stroke) in ((light, shade(index)), (dark, shade(index, dark=True))):
            rules.append(f".b{index}{{fill:{fill};stroke:{stroke}}}")
    day, night = ("\n".join(_scoped(rule, key) for rule in rules) for rules in (light, dark))
    return tag("style", f"\n{day}\n@media (prefers-color-scheme:dark){{\n{night}\n}}\n")


def _scoped(rule: str, key: str) -> str:
    selectors, body = rule.split("{", 1)
    return ",".join(f"#{key} {selector}" for selector in selectors.split(",")) + "{" + body


def _backbone_lines(plan: Plan) -> list[str]:
    lines = []
    for name, backbone in plan.backbones.items():
        info = backbone.info
        use = f", loaded once for {len(backbone.agents)} agents" if len(backbone.agents) > 1 else ""
        size = f"{info.model_type}, width {info.hidden_size}, {info.num_layers} layers"
        lines.append(f"{_short(name)}: {shorten(backbone.spec.source, 60)} ({size}{use})")
    return lines


def _strokes(plan: Plan) -> list[tuple[str, str]]:
    """Class and meaning of each kind of line that occurs."""
    found = {_style(edge) for edge in plan.graph.edges}
    return [(style, text) for style, text in _STROKES.items() if style in found]


def _legend(backbones: list[str], strokes: list[tuple[str, str]], y: float) -> Iterator[str]:
    for index, text in enumerate(backbones):
        style = f"box b{index}"
        swatch = tag("rect", class_=style, x=PAD, y=y - 10, width=16, height=12, rx=3)
        yield swatch + tag("text", mark(text), class_="fact", x=PAD + 24, y=y)
        y += ROW
    for index, (style, text) in enumerate(strokes):
        x = PAD + STROKE_COLUMN * index
        line = tag("path", class_=style, d=f"M{x:.0f} {y - 4:.1f}h34")
        yield line + tag("text", mark(text), class_="fact", x=x + 40, y=y)
    x = PAD + STROKE_COLUMN * len(strokes)
    bold = tag("rect", class_="bold", x=x + 2, y=y - 10, width=16, height=12, rx=3)
    yield bold + tag("text", "writes the answer", class_="fact", x=x + 26, y=y)
