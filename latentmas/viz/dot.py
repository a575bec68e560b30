"""A plan as DOT text, for Graphviz."""

from __future__ import annotations

from collections.abc import Iterator

from latentmas.plan import Plan
from latentmas.spec import TEXT, EdgeSpec
from latentmas.viz.words import backbone_of, shade, width_label

__all__ = ["to_dot"]


def to_dot(plan: Plan) -> str:
    """The plan as a DOT graph.

    Colours are backbones; latent edges are solid and carry their widths, text edges dotted,
    feedback edges dashed and without a say in the layers; the output agent has a bold border.
    """
    name = _quote(plan.graph.name)
    lines = [
        f"rankdir=LR; label={name}; labelloc=t; fontname=sans;",
        'node [shape=box, style="rounded,filled", fontname=sans, fontsize=12];',
        "edge [fontname=sans, fontsize=10];",
        *_nodes(plan),
        *(_edge(plan, edge) for edge in plan.graph.edges),
    ]
    return "\n".join([f"digraph {name} {{", *(f"  {line}" for line in lines), "}"]) + "\n"


def _nodes(plan: Plan) -> Iterator[str]:
    keys = list(plan.backbones)
    for source in plan.graph.text_sources:
        yield f'{_quote(source.name)} [fillcolor="#f3f4f6", color="#8b949e", height=0.3];'
    for agent in plan.graph.agents:
        key, _ = backbone_of(plan, agent.name)
        fill, ink = shade(keys.index(key))
        label = _quote(f"{agent.name}\n{key}\nK = {plan.graph.steps_of(agent)}")
        bold = ", penwidth=4" if agent.name == plan.output else ""
        look = f'label={label}, fillcolor="{fill}", color="{ink}"{bold}'
        yield f"{_quote(agent.name)} [{look}];"


def _edge(plan: Plan, edge: EdgeSpec) -> str:
    look = [f"label={_quote(width_label(plan, edge))}"]
    if edge.link.kind == TEXT:
        look.append("style=dotted")
    elif edge.delay:
        look.append("style=dashed")
    if edge.delay:
        look.append('constraint=false, arrowhead="onormal"')
    return f"{_quote(edge.source)} -> {_quote(edge.target)} [{', '.join(look)}];"


def _quote(text: str) -> str:
    """A quoted string of DOT; a backslash would start an escape of its own there."""
    shown = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    shown = shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{shown}"'
