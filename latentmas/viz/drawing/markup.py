"""A plan as text that other programs draw: Mermaid and DOT."""

from __future__ import annotations

import json
from collections.abc import Iterator

from latentmas.plan import Plan
from latentmas.prompts import prompt_variables
from latentmas.spec import TEXT, EdgeSpec
from latentmas.viz.drawing.labels import (
    agent_task,
    agent_tools,
    backbone_colours,
    backbone_of,
    latent_steps_of,
    width_label,
)

__all__ = ["to_dot", "to_mermaid"]

_PLAIN = frozenset(" !$%()*+,-./:=?@[]^_{|}~→·")


def to_mermaid(plan: Plan) -> str:
    """The plan as a Mermaid flowchart.

    Colours are backbones; latent edges are solid and carry their widths, text edges dotted,
    feedback edges dashed; the output agent has a bold border.
    """
    ids = {agent.name: f"a{i}" for i, agent in enumerate(plan.graph.agents)}
    ids |= {source.name: f"t{i}" for i, source in enumerate(plan.graph.text_sources)}
    edges = [
        *_mermaid_input_edges(plan, ids),
        *(_mermaid_edge(plan, edge, ids) for edge in plan.graph.edges),
    ]
    lines = [
        f"---\ntitle: {_title(plan.graph.name)}\n---",
        "flowchart LR",
        *(f"  {line}" for line in _mermaid_nodes(plan, ids)),
        *(f"  {line}" for line, _ in edges),
        *(f"  linkStyle {i} {style}" for i, (_, style) in enumerate(edges) if style),
        *(f"  {line}" for line in _classes(plan, ids)),
    ]
    return "\n".join(lines) + "\n"


def _mermaid_nodes(plan: Plan, ids: dict[str, str]) -> Iterator[str]:
    for i, name in enumerate(plan.graph.inputs):
        yield f'i{i}(["{_escape(name)}"]):::small'
    for source in plan.graph.text_sources:
        yield f'{ids[source.name]}(["{_escape(source.name)}"]):::small'
    for agent in plan.graph.agents:
        key, _ = backbone_of(plan, agent.name)
        facts = "<br/>".join(_escape(fact) for fact in (key, *_facts(plan, agent.name)))
        yield f'{ids[agent.name]}["{_escape(agent.name)}<br/><small>{facts}</small>"]'


def _mermaid_input_edges(plan: Plan, ids: dict[str, str]) -> Iterator[tuple[str, str]]:
    for i, name in enumerate(plan.graph.inputs):
        readers = [ids[a.name] for a in plan.graph.agents if name in prompt_variables(a)]
        yield from ((f"i{i} --- {reader}", "stroke-width:1px,opacity:0.5") for reader in readers)


def _mermaid_edge(plan: Plan, edge: EdgeSpec, ids: dict[str, str]) -> tuple[str, str]:
    """The line of an edge, and its style."""
    arrow = "-.->" if edge.delay or edge.link.kind == TEXT else "-->"
    label = f'|"{_escape(width_label(plan, edge))}"|'
    line = f"{ids[edge.source]} {arrow}{label} {ids[edge.target]}"
    if edge.link.kind == TEXT:
        return line, "stroke-dasharray:8 3 2 3" if edge.delay else "stroke-dasharray:2 4"
    return line, "stroke-dasharray:8 4" if edge.delay else ""


def _classes(plan: Plan, ids: dict[str, str]) -> Iterator[str]:
    for i, backbone in enumerate(plan.backbones.values()):
        tint, ink = backbone_colours(i)
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
        *_dot_nodes(plan),
        *(_dot_edge(plan, edge) for edge in plan.graph.edges),
    ]
    return "\n".join([f"digraph {name} {{", *(f"  {line}" for line in lines), "}"]) + "\n"


def _dot_nodes(plan: Plan) -> Iterator[str]:
    keys = list(plan.backbones)
    for source in plan.graph.text_sources:
        yield f'{_quote(source.name)} [fillcolor="#f3f4f6", color="#8b949e", height=0.3];'
    for agent in plan.graph.agents:
        key, _ = backbone_of(plan, agent.name)
        fill, ink = backbone_colours(keys.index(key))
        label = _quote("\n".join([agent.name, key, *_facts(plan, agent.name)]))
        bold = ", penwidth=4" if agent.name == plan.output else ""
        look = f'label={label}, fillcolor="{fill}", color="{ink}"{bold}'
        yield f"{_quote(agent.name)} [{look}];"


def _dot_edge(plan: Plan, edge: EdgeSpec) -> str:
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


# --- both -------------------------------------------------------------------------------------


def _facts(plan: Plan, agent: str) -> list[str]:
    """What a box says below its name and backbone."""
    steps, tools = latent_steps_of(plan, agent), agent_tools(plan, agent)
    task = agent_task(plan, agent) if steps is None else f"K = {steps}"
    return [task, f"tools: {tools}"] if tools else [task]
