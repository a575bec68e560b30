"""The legend of a drawing: backbones by colour, kinds of lines."""

from __future__ import annotations

from collections.abc import Iterator

from latentmas.plan import Plan
from latentmas.viz.parts import Line, Part, Rect, Words
from latentmas.viz.text import length, shorten
from latentmas.viz.words import stroke

__all__ = ["PAD", "legend"]

PAD, ROW = 20.0, 21.0
_GAP = 22.0
_STROKES = {
    "edge": "latent",
    "edge text": "text",
    "edge feedback": "next round",
    "edge text feedback": "text, next round",
}
_BOLD = "writes the answer"


def legend(plan: Plan, room: float) -> tuple[list[Part], float, float]:
    """The parts of a legend that begins at (0, 0), its width and its height.

    Args:
        plan: whose.
        room: width to keep to where its lines can be broken.
    """
    lines = _backbone_lines(plan)
    width = max(24 + length(text, 11) for text in lines)
    parts: list[Part] = []
    y = 14.0
    for index, text in enumerate(lines):
        parts += [
            Rect(f"box b{index}", 0, y - 10, 16, 12, 3),
            Words("fact", text, 24, y),
        ]
        y += ROW
    room, x = max(width, room), 0.0
    for style, text in _strokes(plan):
        sign = 24.0 if style == "bold" else 40.0
        wide = sign + length(text, 11)
        if x and x + wide > room:
            x, y = 0.0, y + ROW
        parts += [_sign(style, x, y), Words("fact", text, x + sign, y)]
        width, x = max(width, x + wide), x + wide + _GAP
    return parts, width, y + 4


def _sign(style: str, x: float, y: float) -> Part:
    if style == "bold":
        return Rect("bold", x + 2, y - 10, 16, 12, 3)
    return Line(style, (("M", (x, y - 4)), ("L", (x + 34, y - 4))))


def _strokes(plan: Plan) -> Iterator[tuple[str, str]]:
    """Style and meaning of each kind of line that occurs, and of the bold border."""
    found = {stroke(edge) for edge in plan.graph.edges}
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
