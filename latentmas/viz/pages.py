"""A plan as a page of HTML: the drawing, and the same in tables."""

from __future__ import annotations

from collections.abc import Iterator

from latentmas.plan import Plan
from latentmas.spec import TEXT
from latentmas.viz.labels import backbone_of, link_of, width_label
from latentmas.viz.pages_old import figure, heading, mark, page, table, tag
from latentmas.viz.svg import to_svg

__all__ = ["graph_section", "to_html"]


def to_html(plan: Plan) -> str:
    """One file that needs no network: the drawing, then agents, edges and backbones as tables."""
    head = heading(1, plan.graph.name)
    return page(plan.graph.name, [head, *graph_section(plan)])


def graph_section(plan: Plan) -> Iterator[str]:
    """The drawing and its tables, for a page that shows more than that."""
    yield figure("The graph", to_svg(plan, inline=True))
    yield tag(
        "details",
        tag("summary", mark("The graph in tables"))
        + _agents(plan)
        + _edges(plan)
        + _backbones(plan),
    )


def _agents(plan: Plan) -> str:
    rows = [
        (
            agent.name,
            backbone_of(plan, agent.name)[0],
            str(plan.graph.steps_of(agent)),
            "decodes the answer" if agent.name == plan.output else "",
        )
        for agent in plan.graph.agents
    ]
    return table("Agents", ("agent", "backbone", "latent steps", ""), rows, numbers=(2,))


def _edges(plan: Plan) -> str:
    rows = []
    for edge in plan.graph.edges:
        link = link_of(plan, edge)
        kind, count = (link.kind, f"{link.n_parameters:,}") if link else (TEXT, "")
        when = "next round" if edge.delay else "same round"
        name = f"{edge.source} → {edge.target}.{edge.slot}"
        rows.append((name, kind, when, width_label(plan, edge), count))
    columns = ("edge", "kind", "read in the", "widths", "parameters")
    return table("Edges", columns, rows, numbers=(4,)) if rows else ""


def _backbones(plan: Plan) -> str:
    rows = [
        (
            key,
            one.spec.source,
            one.info.model_type,
            str(one.info.hidden_size),
            str(one.info.num_layers),
            ", ".join(one.agents),
        )
        for key, one in plan.backbones.items()
    ]
    columns = ("backbone", "source", "type", "width", "layers", "agents")
    return table("Backbones, each loaded once", columns, rows, numbers=(3, 4))
