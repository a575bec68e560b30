"""Pages of HTML that stand alone: one file, no network, no script, light and dark, any width.

Pages are templates (`templates/*.html.jinja`) over plain data. Jinja escapes whatever it is handed,
except for drawings, which are `Markup` because `svg` and `charts` have escaped their words.
"""

from __future__ import annotations

import functools
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from latentmas.plan import Plan
from latentmas.spec import TEXT
from latentmas.viz.drawing.labels import (
    agent_tools,
    backbone_of,
    latent_steps_of,
    link_of,
    width_label,
)
from latentmas.viz.drawing.svg import to_svg

__all__ = [
    "Cell",
    "GraphView",
    "Table",
    "page_environment",
    "printable",
    "render",
    "render_table",
    "text_cell",
    "to_html",
]

Cell = str | tuple[str, str]
"""Text of a cell; or the text and the CSS style of the cell."""


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: Container[int] = ()
    """Columns of numbers, from 0."""
    total: bool = False
    """Whether the last row is the sum of the others."""


@dataclass(frozen=True)
class GraphView:
    """A plan's drawing, and the same in tables."""

    drawing: Markup
    tables: Sequence[Table]

    @classmethod
    def of(cls, plan: Plan) -> GraphView:
        """Draw a plan."""
        tables = [_agents(plan), _edges(plan), _backbones(plan)]
        return cls(Markup(to_svg(plan, inline=True)), [table for table in tables if table.rows])


def to_html(plan: Plan) -> str:
    """One file that needs no network: the drawing, then agents, edges and backbones as tables."""
    return render("plan.html.jinja", title=plan.graph.name, graph=GraphView.of(plan))


def render(template: str, **values: Any) -> str:
    """A page.

    Args:
        template: name of a file in `templates`.
        **values: what it shows; text is escaped unless it is `Markup`.
    """
    return page_environment().get_template(template).render(values)


def text_cell(text: str) -> Cell:
    """A cell for any text: a long one asks for some width, and breaks within words if it must."""
    return (text, "min-width:14rem;overflow-wrap:anywhere") if len(text) > 40 else text


def render_table(table: Table) -> Markup:
    """A table alone, for a page that shows it among other things."""
    parts: Any = page_environment().get_template("parts.html.jinja").module
    return Markup(parts.table(table))


def printable(value: Any) -> Any:
    """A text whose characters may all be shown; line ends stay, other values pass."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in value)


@functools.cache
def page_environment(package: str = "latentmas.viz") -> Environment:
    """The environment that renders pages; every value is escaped.

    Args:
        package: Package with a folder `templates`.
    """
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _agents(plan: Plan) -> Table:
    rows = []
    for agent in plan.graph.agents:
        steps = latent_steps_of(plan, agent.name)
        key, task = backbone_of(plan, agent.name)[0], ""
        if agent.name == plan.output:
            task = "decodes the answer"
        elif steps is None:
            task = "writes text"
        shown = "" if steps is None else str(steps)
        rows.append((agent.name, key, shown, task, agent_tools(plan, agent.name)))
    columns = ["agent", "backbone", "latent steps", "", "tools"]
    if not any(agent.tools for agent in plan.graph.agents):
        columns.remove("tools")
    return Table("Agents", columns, [row[: len(columns)] for row in rows], numbers=(2,))


def _edges(plan: Plan) -> Table:
    rows = []
    for edge in plan.graph.edges:
        link = link_of(plan, edge)
        kind, count = (link.kind, f"{link.n_parameters:,}") if link else (TEXT, "")
        when = "next round" if edge.delay else "same round"
        name = f"{edge.source} → {edge.target}.{edge.slot}"
        rows.append((name, kind, when, width_label(plan, edge), count))
    columns = ("edge", "kind", "read in the", "widths", "parameters")
    return Table("Edges", columns, rows, numbers=(4,))


def _backbones(plan: Plan) -> Table:
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
    return Table("Backbones, each loaded once", columns, rows, numbers=(3, 4))
