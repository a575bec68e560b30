"""A plan as an SVG picture, by hand: no dependency, light and dark, fit for screen readers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from latentmas.plan import Plan
from latentmas.viz.drawing.compose import compose
from latentmas.viz.drawing.labels import backbone_colours
from latentmas.viz.drawing.scene import Group, Line, Part, Path, Rect, Scene, Text

__all__ = ["element", "escape_text", "to_svg"]

_STYLE = """\
text{font-family:system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;fill:#1b1f24}
.paper{fill:#ffffff}
.title{font-size:17px;font-weight:600}
.name{font-size:14px;font-weight:600;text-anchor:middle}
.fact{font-size:11px}
.note,.label{font-size:11px;text-anchor:middle}
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


def to_svg(plan: Plan, *, inline: bool = False, nonce: str | None = None) -> str:
    """The plan as an SVG document.

    Columns are the layers of the forward edges, colours are backbones. Latent edges are solid and
    carry their widths, text edges dotted, feedback edges dashed and led along the lower margin; a
    bold border marks the agent that decodes the answer. Hovering shows the details.

    Args:
        plan: what to draw.
        inline: for a place inside an HTML page, which needs no name space. Groups then say what
            they draw: `data-part="agent planner"`.
        nonce: Nonce of the page's content security policy, for the drawing's style.
    """
    scene, key = compose(plan), f"lm{plan.digest[:8]}"
    size: dict[str, str | float] = {"width": scene.width, "height": scene.height}
    parts = [
        element("title", escape_text(scene.title), id=f"{key}-t"),
        element("desc", escape_text(scene.description), id=f"{key}-d"),
        _css(len(plan.backbones), key, nonce),
        _arrow_head(key),
        element("rect", class_="paper", **size, rx=8),
        *(_part(part, key, named=inline) for part in scene.parts),
    ]
    view = _view(scene, inline) | size
    names = {"role": "img", "aria_labelledby": f"{key}-t {key}-d"}
    return element("svg", "\n".join(["", *parts, ""]), id=key, **view, **names) + "\n"


def _view(scene: Scene, inline: bool) -> dict[str, str | float]:
    space = {} if inline else {"xmlns": "http://www.w3.org/2000/svg"}
    return {**space, "viewBox": f"0 0 {scene.width:.1f} {scene.height:.1f}"}


def _part(part: Part, key: str, *, named: bool = False) -> str:
    if isinstance(part, Group):
        inner = element("title", escape_text(part.tip)) + "".join(_part(p, key) for p in part.parts)
        return element("g", inner, **({"data_part": part.about} if named else {}))
    if isinstance(part, Text):
        return element("text", escape_text(part.text), class_=part.style, x=part.x, y=part.y)
    if isinstance(part, Line):
        tip = {"marker_end": f"url(#{key}-tip)"} if part.arrow else {}
        return element("path", class_=part.style, d=_path(part.path), **tip)
    assert isinstance(part, Rect)
    size = {"width": part.width, "height": part.height}
    return element("rect", class_=part.style, x=part.x, y=part.y, **size, rx=part.radius)


def _path(path: Path) -> str:
    return " ".join(command + " ".join(f"{n:.1f}" for n in numbers) for command, numbers in path)


def _arrow_head(key: str) -> str:
    """The head of an arrow."""
    path = element("path", class_="tip", d="M0 0.8L10 5L0 9.2z")
    size: dict[str, str | float] = {"markerWidth": 8, "markerHeight": 8, "refX": 9, "refY": 5}
    view = {"viewBox": "0 0 10 10", "markerUnits": "userSpaceOnUse", "orient": "auto"}
    return element("defs", element("marker", path, id=f"{key}-tip", **view, **size))


def _css(backbones: int, key: str, nonce: str | None) -> str:
    """Rules that hold inside this drawing only, as several may stand on one page."""
    light, dark = _STYLE.splitlines(), _DARK.splitlines()
    for index in range(backbones):
        for rules, (fill, stroke) in (
            (light, backbone_colours(index)),
            (dark, backbone_colours(index, dark=True)),
        ):
            rules.append(f".b{index}{{fill:{fill};stroke:{stroke}}}")
    day, night = _scoped(light, key), _scoped(dark, key)
    text = f"\n{day}\n@media (prefers-color-scheme:dark){{\n{night}\n}}\n"
    return element("style", text, **({} if nonce is None else {"nonce": nonce}))


def _scoped(rules: Sequence[str], key: str) -> str:
    parts = [rule.split("{", 1) for rule in rules]
    return "\n".join(
        ",".join(f"#{key} {selector}" for selector in selectors.split(",")) + "{" + body
        for selectors, body in parts
    )


_SHAPES = frozenset({"circle", "line", "path", "polyline", "rect"})


def element(name: str, inner: str = "", /, **attributes: str | float) -> str:
    """An element around `inner`, which is XML already; `class_` and `text_x` read as in XML."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
    )
    closes_itself = not inner and name in _SHAPES  # in HTML only these may
    return f"<{name}{pairs}/>" if closes_itself else f"<{name}{pairs}>{inner}</{name}>"


def escape_text(text: str) -> str:
    """Text that is safe in XML; characters that may not be shown become a sign for that."""
    return escape("".join(c if c.isprintable() else "\ufffd" for c in text))


def _value(value: str | float) -> str:
    return escape_text(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
