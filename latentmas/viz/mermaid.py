"""A plan as Mermaid text, for pages that draw it themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator

from latentmas.plan import Plan
from latentmas.spec import TEXT, EdgeSpec
from latentmas.spec.prompts import prompt_variables
from latentmas.viz.words import backbone_of, shade, width_label

__all__ = ["to_mermaid"]

_PLAIN = frozenset(" !$%()*+,-./:=?@[]^_{|}~→·")


def to_mermaid(plan: Plan) -> str:
    """The plan as a Mermaid flowchart.

    Colours are backbones; latent edges are solid and carry their widths, text edges dotted,
    feedback edges dashed; the output agent has a bold border.
    """
    ids = {agent.name: f"a{i}" for i, agent in enumerate(plan.graph.agents)}
    ids |= {source.name: f"t{i}" for i, source in enumerate(plan.graph.text_sources)}
    edges = [*_input_edges(plan, ids), *(_edge(plan, edge, ids) for edge in plan.graph.edges)]
    lines = [
        f"---\ntitle: {_title(plan.graph.name)}\n---",
        "flowchart LR",
        *(f"  {line}" for line in _nodes(plan, ids)),
        *(f"  {line}" for line, _ in edges),
        *(f"  linkStyle {i} {style}" for i, (_, style) in enumerate(edges) if style),
        *(f"  {line}" for line in _classes(plan, ids)),
    ]
    return "\n".join(lines) + "\n"


def _nodes(plan: Plan, ids: dict[str, str]) -> Iterator[str]:
    for i, name in enumerate(plan.graph.inputs):
        yield f'i{i}(["{_escape(name)}"]):::small'
    for source in plan.graph.text_sources:
        yield f'{ids[source.name]}(["{_escape(source.name)}"]):::small'
    for agent in plan.graph.agents:
        key, _ = backbone_of(plan, agent.name)
        facts = f"{_escape(key)}<br/>K = {plan.graph.steps_of(agent)}"
        yield f'{ids[agent.name]}["{_escape(agent.name)}<br/><small>{facts}</small>"]'


def _input_edges(plan: Plan, ids: dict[str, str]) -> Iterator[tuple[str, str]]:
    for i, name in enumerate(plan.graph.inputs):
        readers = [ids[a.name] for a in plan.graph.agents if name in prompt_variables(a)]
        yield from ((f"i{i} --- {reader}", "stroke-width:1px,opacity:0.5") for reader in readers)


def _edge(plan: Plan, edge: EdgeSpec, ids: dict[str, str]) -> tuple[str, str]:
    """The line of an edge, and its style."""
    arrow = "-.->" if edge.delay or edge.link.kind == TEXT else "-->"
    label = f'|"{_escape(width_label(plan, edge))}"|'
    line = f"{ids[edge.source]} {arrow}{label} {ids[edge.target]}"
    if edge.link.kind == TEXT:
        return line, "stroke-dasharray:8 3 2 3" if edge.delay else "stroke-dasharray:2 4"
    return line, "stroke-dasharray:8 4" if edge.delay else ""


def _classes(plan: Plan, ids: dict[str, str]) -> Iterator[str]:
    for i, backbone in enumerate(plan.backbones.values()):
        tint, ink = shade(i)
        yield f"classDef b{i} fill:{tint},stroke:{ink},color:#111"
        yield f"class {','.join(ids[agent] for agent in backbone.agents)} b{i}"
    yield "classDef small font-size:12px"
    yield f"style {ids[plan.output]} stroke-width:4px"


def _title(text: str) -> str:
    """A quoted title; Mermaid strips marks from titles and takes no entities there."""
    plain = "".join(c if c.isalnum() or c in _PLAIN else " " for c in text)
    return json.dumps(" ".join(plain.split()), ensure_ascii=False)


def _escape(text: str) -> str:
    """Mermaid's entities for all but plain characters, so that no text can end a label."""
    return "".join(c if c.isalnum() or c in _PLAIN else f"#{ord(c)};" for c in text)
