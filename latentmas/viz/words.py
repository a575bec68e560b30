"""What the drawings have in common: colours of backbones, words on edges."""

from __future__ import annotations

from latentmas.plan import LinkPlan, Plan, PlanBackbone
from latentmas.spec import TEXT, EdgeSpec

__all__ = ["backbone_of", "link_of", "mix", "shade", "stroke", "width_label"]

# Okabe and Ito's colours, told apart by colour-blind readers too.
_OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


def shade(index: int, *, dark: bool = False) -> tuple[str, str]:
    """Fill and border of the `index`-th backbone; after seven, the same hues, stronger."""
    hue, turn = _OKABE_ITO[index % 7], index // 7 % 2
    if dark:
        return mix(hue, "#14181f", 0.34 + 0.26 * turn), mix(hue, "#ffffff", 0.8)
    return mix(hue, "#ffffff", 0.2 + 0.3 * turn), mix(hue, "#000000", 0.85)


def mix(colour: str, other: str, part: float) -> str:
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


def stroke(edge: EdgeSpec) -> str:
    """Style of an edge's line."""
    return "edge" + " text" * (edge.link.kind == TEXT) + " feedback" * bool(edge.delay)


def backbone_of(plan: Plan, agent: str) -> tuple[str, PlanBackbone]:
    """Key and backbone that an agent runs on."""
    return next((key, one) for key, one in plan.backbones.items() if agent in one.agents)
