"""Words of drawings: what they say, how wide they are, where they stand; colours of backbones."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from latentmas.plan import LinkPlan, Plan, PlanBackbone, Rollout
from latentmas.spec import TEXT, EdgeSpec
from latentmas.viz.drawing.layout import Box
from latentmas.viz.drawing.scene import Pen

__all__ = [
    "HEIGHT",
    "agent_task",
    "agent_tools",
    "backbone_of",
    "label_spots",
    "latent_steps_of",
    "text_width",
    "link_of",
    "blend",
    "backbone_colours",
    "shorten",
    "line_class",
    "width_label",
]

# Okabe and Ito's colours, told apart by colour-blind readers too.
_OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


def backbone_colours(index: int, *, dark: bool = False) -> tuple[str, str]:
    """Fill and border of the `index`-th backbone; after seven, the same hues, stronger."""
    hue, turn = _OKABE_ITO[index % 7], index // 7 % 2
    if dark:
        return blend(hue, "#14181f", 0.34 + 0.26 * turn), blend(hue, "#ffffff", 0.8)
    return blend(hue, "#ffffff", 0.2 + 0.3 * turn), blend(hue, "#000000", 0.85)


def blend(colour: str, other: str, part: float) -> str:
    """`part` of one colour and the rest of the other."""
    pairs = [(int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(x * part + y * (1 - part)):02x}" for x, y in pairs)


def link_of(plan: Plan, edge: EdgeSpec) -> LinkPlan | None:
    """The outer link on an edge; text edges have none."""
    if edge.link.kind == TEXT:
        return None
    return next((x for x in plan.links if x.role == "outer" and edge.id in x.users), None)


def width_label(plan: Plan, edge: EdgeSpec) -> str:
    """`2048→1536`, with the name of shared weights; `text` where the source speaks."""
    if edge.link.kind == TEXT:
        return TEXT
    source, target = (backbone_of(plan, name)[1].info for name in (edge.source, edge.target))
    shared = f" · {edge.link.share}" if edge.link.share else ""
    return f"{source.hidden_size}→{target.hidden_size}{shared}"


def line_class(edge: EdgeSpec) -> str:
    """Style of an edge's line."""
    return "edge" + " text" * (edge.link.kind == TEXT) + " feedback" * bool(edge.delay)


def backbone_of(plan: Plan, agent: str) -> tuple[str, PlanBackbone]:
    """Key and backbone that an agent runs on."""
    return next((key, one) for key, one in plan.backbones.items() if agent in one.agents)


def latent_steps_of(plan: Plan, agent: str) -> int | None:
    """Latent steps of an agent's turns; None for an agent that only writes, and never rolls."""
    if not any(isinstance(turn, Rollout) and turn.agent == agent for turn in plan.turns()):
        return None
    return plan.graph.steps_of(plan.graph.agent(agent))


def agent_task(plan: Plan, agent: str) -> str:
    """What an agent does in its turns, in a few words."""
    steps = latent_steps_of(plan, agent)
    if steps is None:
        return "writes the answer" if agent == plan.output else "writes text"
    return f"{steps} latent step{'s' * (steps != 1)}"


def agent_tools(plan: Plan, agent: str) -> str:
    """Names of the tools that an agent may call, with commas."""
    return ", ".join(plan.graph.agent(agent).tools)


# --- widths -----------------------------------------------------------------------------------

# Advances of DejaVu Sans, the widest of the fonts that drawings ask for, rounded up, in ems.
_ADVANCES = (
    (" 'ijl,.·:;/|\\fI-()[]t!rJ", 0.43, 0.51),
    ('_*`szxvyckeaoTFLPEYK?"', 0.67, 0.73),
    ("$0123456789bdghnpquABVXZSCR{}", 0.71, 0.80),
    ("UNHD&GOQw#+<=>^~→←×", 0.85, 0.94),
)
_PLAIN = {c: (thin, bold) for text, thin, bold in _ADVANCES for c in text}
_WIDE = (1.1, 1.24)


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Upper bound of the width of a text in a font size."""
    return size * sum(_advance(c)[bold] for c in text)


def _advance(character: str) -> tuple[float, float]:
    """Advances of a regular and a bold character, in ems; unknown ones count as wide."""
    base = unicodedata.normalize("NFD", character)[:1]
    return _PLAIN.get(base, _WIDE)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, with the end kept."""
    return text if len(text) <= limit else f"{text[: limit - 9]}…{text[-8:]}"


# --- places of labels -------------------------------------------------------------------------

HEIGHT = 14.0
_CELL, _TRIES = 6.0, 75

Area = tuple[float, float, float, float]
Spot = tuple[float, float]
Crowd = dict[tuple[int, int], set[int]]
"""Cell of the page → edges that run through it."""


def label_spots(
    pens: Sequence[Pen], widths: Sequence[float], boxes: Iterable[Box]
) -> list[Spot | None]:
    """The centre of each edge's label, over as few other edges as can be; None without room."""
    taken: list[Area] = [(box.x, box.top, box.right, box.bottom) for box in boxes]
    crowd: Crowd = {}
    for index, pen in enumerate(pens):
        for x, y in pen.points:
            crowd.setdefault((int(x // _CELL), int(y // _CELL)), set()).add(index)
    spots: list[Spot | None] = []
    for index, (pen, width) in enumerate(zip(pens, widths, strict=True)):
        areas = [_area(spot, width) for spot in pen.spots[:_TRIES]]
        free = [a for a in areas if not any(_overlap(a, other) for other in taken)]
        best = min(free, key=lambda area: len(_passing(area, crowd) - {index}), default=None)
        if best:
            taken.append(best)
        spots.append(((best[0] + best[2]) / 2, (best[1] + best[3]) / 2) if best else None)
    return spots


def _area(spot: Spot, width: float) -> Area:
    return spot[0] - width / 2, spot[1] - HEIGHT / 2, spot[0] + width / 2, spot[1] + HEIGHT / 2


def _overlap(a: Area, b: Area) -> bool:
    return a[0] < b[2] + 3 and b[0] < a[2] + 3 and a[1] < b[3] + 2 and b[1] < a[3] + 2


def _passing(area: Area, crowd: Crowd) -> set[int]:
    columns = range(int(area[0] // _CELL), int(area[2] // _CELL) + 1)
    rows = range(int(area[1] // _CELL), int(area[3] // _CELL) + 1)
    return set().union(*(crowd.get((i, j), ()) for i in columns for j in rows))
