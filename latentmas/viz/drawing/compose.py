"""A plan as a scene: every box, edge, label and line of the legend in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from latentmas.plan import Plan
from latentmas.spec import TEXT, EdgeSpec
from latentmas.viz.drawing.labels import (
    HEIGHT,
    agent_task,
    agent_tools,
    backbone_of,
    label_spots,
    line_class,
    link_of,
    shorten,
    text_width,
    width_label,
)
from latentmas.viz.drawing.layout import Box, arrange, layers
from latentmas.viz.drawing.routes import LANE, Geometry, route, turn_down
from latentmas.viz.drawing.scene import Group, Line, Part, Pen, Rect, Scene, Text

__all__ = ["compose"]

HEAD, MAX_WIDTH = 66.0, 1600.0
LINE = 17.0
"""Height of a line of text in a box."""
PAD, ROW = 20.0, 21.0
_GAP = 22.0
_STROKES = {
    "edge": "latent",
    "edge text": "text",
    "edge feedback": "next round",
    "edge text feedback": "text, next round",
}
_BOLD = "writes the answer"


def compose(plan: Plan) -> Scene:
    """Lay a plan out: layers of the forward edges left to right; top to bottom if too wide so."""
    scene = _composed(plan, down=False)
    if scene.width <= MAX_WIDTH:
        return scene
    return min(scene, _composed(plan, down=True), key=lambda each: each.width)


def _composed(plan: Plan, *, down: bool) -> Scene:
    edges = sorted(plan.graph.edges, key=lambda edge: edge.delay)
    ends = [(edge.source, edge.target) for edge in edges]
    forward = sum(not edge.delay for edge in edges)
    boxes = _boxes(plan, edges, down=down)
    labels = [width_label(plan, edge) for edge in edges]
    widths = [text_width(label, 11) + 8.0 for label in labels]
    grid, back = arrange(boxes, ends[:forward]), ends[forward:]
    if down:
        lane = max([LANE, *widths[forward:]])
        geometry = turn_down(boxes, route(boxes, grid, back, [HEIGHT] * len(edges), lane))
    else:
        geometry = route(boxes, grid, back, widths)
    spots = label_spots(geometry.pens, widths, boxes.values())
    start, end = _extent(geometry, widths, spots)
    head = [shorten(plan.graph.name, 80), _subtitle(plan)]
    least = max(text_width(head[0], 17, bold=True), text_width(head[1], 11)) + 2 * PAD
    key, key_width, key_height = _legend(plan, max(end - start, least) - 2 * PAD)
    width = max(end - start, least, key_width + 2 * PAD)
    left, drop = (width - end - start) / 2, HEAD - geometry.top
    floor = geometry.bottom + drop
    parts: list[Part] = [
        *(_line(plan, edge, pen) for edge, pen in zip(edges, geometry.pens, strict=True)),
        *(_node(plan, box) for box in boxes.values()),
        *(part for item in zip(labels, widths, spots, strict=True) for part in _label(*item)),
    ]
    return Scene(
        width=width,
        height=floor + 8 + key_height + PAD,
        title=plan.graph.name,
        description=_description(plan),
        parts=(
            Text("title", head[0], PAD, 28),
            Text("fact mute", head[1], PAD, 46),
            *(part.moved(left, drop) for part in parts),
            *(part.moved(PAD, floor + 8) for part in key),
        ),
    )


# --- boxes ------------------------------------------------------------------------------------


def _boxes(plan: Plan, edges: Sequence[EdgeSpec], *, down: bool) -> dict[str, Box]:
    """A box for each agent and text source, in its layer, as if layers ran left to right.

    Agents of a layer take equally much room along the drawing.
    """
    names = [agent.name for agent in plan.graph.agents]
    sources = [source.name for source in plan.graph.text_sources]
    forward = [(edge.source, edge.target) for edge in edges if not edge.delay]
    depth = layers([*names, *sources], forward, late=sources)
    boxes = {}
    for name in names:
        facts = _facts(plan, name)
        widest = max(text_width(fact, 11) for fact in facts)
        width = max(104.0, text_width(_short(name), 14, bold=True) + 20.0, widest + 20.0)
        words = width, 28.0 + LINE * len(facts)
        along, across = reversed(words) if down else words
        back = max(_degrees(name, [edge for edge in edges if edge.delay]))
        across = max(across, 10.0 * max(_degrees(name, edges)) + 14.0)
        boxes[name] = Box(name, max(along, 48.0 + 12.0 * back), across, depth[name])
    for box in boxes.values():
        box.width = max(mate.width for mate in boxes.values() if mate.layer == box.layer)
    for name in sources:
        words = text_width(_short(name), 11) + 22.0, 26.0
        along, across = reversed(words) if down else words
        boxes[name] = Box(name, along, across, depth[name])
    return boxes


def _degrees(name: str, edges: Sequence[EdgeSpec]) -> tuple[int, int]:
    """How many edges leave a box, and how many reach it."""
    return sum(e.source == name for e in edges), sum(e.target == name for e in edges)


def _short(name: str) -> str:
    return shorten(name, 28)


def _facts(plan: Plan, agent: str) -> list[str]:
    """The lines below an agent's name: its backbone, what it does, its tools."""
    tools = agent_tools(plan, agent)
    lines = [_short(backbone_of(plan, agent)[0]), agent_task(plan, agent)]
    return lines + ([shorten(f"tools: {tools}", 40)] if tools else [])


def _node(plan: Plan, box: Box) -> Group:
    if any(source.name == box.name for source in plan.graph.text_sources):
        inside = Text("note", _short(box.name), box.middle, box.y + 4)
        parts = (_rect(box, "source", 13), inside)
        return Group(f"{box.name}: text from outside", parts, f"source {box.name}")
    facts, tools = _facts(plan, box.name), agent_tools(plan, box.name)
    tip = [f"{box.name}: {facts[0]}", facts[1], *[f"tools: {tools}"] * bool(tools)]
    output = box.name == plan.output
    style = f"box b{list(plan.backbones).index(backbone_of(plan, box.name)[0])}"
    lines = [("name", _short(box.name)), *(("note", fact) for fact in facts)]
    top = box.y + 6 - LINE * (len(lines) - 1) / 2
    words = tuple(
        Text(kind, text, box.middle, top + LINE * i) for i, (kind, text) in enumerate(lines)
    )
    tip += ["decodes the answer"] * output
    rect = _rect(box, style + " output" * output, 9)
    return Group("; ".join(tip), (rect, *words), f"agent {box.name}")


def _rect(box: Box, style: str, radius: float) -> Rect:
    return Rect(style, box.x, box.top, box.width, box.height, radius)


# --- edges ------------------------------------------------------------------------------------


def _line(plan: Plan, edge: EdgeSpec, pen: Pen) -> Group:
    link = link_of(plan, edge)
    what = f"{link.kind}, {link.n_parameters:,} parameters" if link else TEXT
    when = "; used in the next round" if edge.delay else ""
    line = Line(line_class(edge), tuple(pen.path), arrow=True)
    return Group(f"{edge.id}: {what}{when}", (line,), f"edge {edge.id}")


def _label(text: str, width: float, spot: tuple[float, float] | None) -> Iterator[Rect | Text]:
    if spot is None:  # no free place; the tooltip of the edge says it
        return
    x, y = spot
    yield Rect("paper", x - width / 2, y - HEIGHT / 2, width, HEIGHT, 3)
    yield Text("label mute", text, x, y + 4)


def _extent(
    drawn: Geometry, widths: Sequence[float], spots: Sequence[tuple[float, float] | None]
) -> tuple[float, float]:
    """Left and right of a drawing, with labels that stand out at its sides."""
    areas = [(s[0] - w / 2, s[0] + w / 2) for w, s in zip(widths, spots, strict=True) if s]
    left = min([drawn.left, *(a - 8 for a, _ in areas)])
    return left, max([drawn.right, *(b + 8 for _, b in areas)])


# --- page -------------------------------------------------------------------------------------


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


# --- legend -----------------------------------------------------------------------------------


def _legend(plan: Plan, room: float) -> tuple[list[Part], float, float]:
    """The parts of a legend that begins at (0, 0), its width and its height.

    Args:
        plan: whose.
        room: width to keep to where its lines can be broken.
    """
    lines = _backbone_lines(plan)
    width = max(24 + text_width(text, 11) for text in lines)
    parts: list[Part] = []
    y = 14.0
    for index, text in enumerate(lines):
        parts += [
            Rect(f"box b{index}", 0, y - 10, 16, 12, 3),
            Text("fact", text, 24, y),
        ]
        y += ROW
    room, x = max(width, room), 0.0
    for style, text in _strokes(plan):
        sign = 24.0 if style == "bold" else 40.0
        wide = sign + text_width(text, 11)
        if x and x + wide > room:
            x, y = 0.0, y + ROW
        parts += [_sign(style, x, y), Text("fact", text, x + sign, y)]
        width, x = max(width, x + wide), x + wide + _GAP
    return parts, width, y + 4


def _sign(style: str, x: float, y: float) -> Part:
    if style == "bold":
        return Rect("bold", x + 2, y - 10, 16, 12, 3)
    return Line(style, (("M", (x, y - 4)), ("L", (x + 34, y - 4))))


def _strokes(plan: Plan) -> Iterator[tuple[str, str]]:
    """Style and meaning of each kind of line that occurs, and of the bold border."""
    found = {line_class(edge) for edge in plan.graph.edges}
    yield from ((style, text) for style, text in _STROKES.items() if style in found)
    yield "bold", _BOLD


def _backbone_lines(plan: Plan) -> list[str]:
    lines = []
    for name, backbone in plan.backbones.items():
        info = backbone.info
        use = f", loaded once for {len(backbone.agents)} agents" if len(backbone.agents) > 1 else ""
        size = f"{info.model_type}, width {info.hidden_size}, {info.num_layers} layers"
        lines.append(f"{shorten(name, 28)}: {shorten(backbone.spec.source, 60)} ({size}{use})")
    return lines
