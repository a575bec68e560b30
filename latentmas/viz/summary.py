"""A plan as text, for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from io import StringIO
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from latentmas.plan import Decode, LinkPlan, Plan, Rollout
from latentmas.prompts import prompt_variables
from latentmas.spec import TEXT, AgentSpec, EdgeSpec
from latentmas.viz.drawing.labels import agent_tools, backbone_of, latent_steps_of

__all__ = ["summarise"]

WIDTH = 100


def summarise(plan: Plan) -> str:
    """The plan as plain text: backbones, agents, links with exact sizes, schedule."""
    graph = plan.graph
    name = "".join(c if c.isprintable() else "\ufffd" for c in graph.name)
    head = (
        f"{name}: {_count(graph.rounds, 'round')}, {_count(len(graph.agents), 'agent')}, "
        f"{_count(len(plan.steps), 'step')}, {plan.n_parameters:,} link parameters"
    )
    parts = [
        head,
        _backbones(plan),
        _agents(plan),
        _links(plan),
        _schedule(plan),
        *_notes(plan),
    ]
    return "\n\n".join(part for part in parts if part)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# --- tables -----------------------------------------------------------------------------------


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: str) -> str:
    """A table in plain text; `right` names the columns of numbers, comma-separated."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        if column in right.split(","):
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    file = StringIO()
    _console(file).print(table)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    return "\n".join([title, *(f"  {line}" if line else line for line in lines)]).rstrip()


def _console(file: StringIO) -> Console:
    """A console that writes plain characters, whatever the terminal, and takes texts literally."""
    return Console(
        file=file,
        width=WIDTH - 2,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )


def _backbones(plan: Plan) -> str:
    lines = ["Backbones"]
    for key, backbone in plan.backbones.items():
        spec, info = backbone.spec, backbone.info
        revision = f" @ {spec.revision}" if spec.revision else ""
        shared = "loaded once for " if len(backbone.agents) > 1 else "for "
        facts = (
            f"{info.model_type}, width {info.hidden_size}, {info.num_layers} layers, "
            f"dtype {spec.dtype}; {shared}{', '.join(backbone.agents)}{_adapter(plan, key)}"
        )
        lines += [f"  {key}: {spec.source}{revision}", *_wrapped(facts, "      ", "      ")]
    return "\n".join(lines)


def _adapter(plan: Plan, key: str) -> str:
    """A backbone's adapter, and the backbones that share its weights."""
    own, found = plan.backbones[key], ""
    if own.spec.adapter is not None:
        revision = f" @ {own.spec.adapter_revision}" if own.spec.adapter_revision else ""
        rank = f" of rank {own.info.adapter.r}" if own.info.adapter else ""
        found = f"; LoRA adapter{rank}: {own.spec.adapter}{revision}"
    others = [k for k, one in plan.backbones.items() if one.spec.base == own.spec.base and k != key]
    return f"{found}; shares weights with {', '.join(others)}" if others else found


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _agents(plan: Plan) -> str:
    rows = []
    for agent in plan.graph.agents:
        steps = latent_steps_of(plan, agent.name)
        shown = "-" if steps is None else str(steps)
        tools = agent_tools(plan, agent.name) or "-"
        key = backbone_of(plan, agent.name)[0]
        rows.append((agent.name, key, shown, _slots(plan, agent), tools))
    columns = ["name", "backbone", "K", "slots"]
    if any(agent.tools for agent in plan.graph.agents):
        columns.append("tools")
    return _table("Agents", columns, [row[: len(columns)] for row in rows], right="K")


def _slots(plan: Plan, agent: AgentSpec) -> str:
    bound = {edge.slot: edge for edge in plan.graph.edges if edge.target == agent.name}
    fields = [name for name in plan.graph.inputs if name in prompt_variables(agent)]
    slots = [_slot(edge) for edge in bound.values()]
    return ", ".join([*slots, *fields]) or "-"


def _slot(edge: EdgeSpec) -> str:
    how = ["text"] * (edge.link.kind == TEXT) + ["next round"] * bool(edge.delay)
    return f"{edge.slot} ← {edge.source}" + (f" ({', '.join(how)})" if how else "")


def _links(plan: Plan) -> str:
    if not plan.links:
        return "Links\n  none"
    shared = any(len(link.users) > 1 for link in plan.links)
    columns = ["id", "kind", "in", "out", "parameters", "differentiable"]
    rows = [_link(link) for link in plan.links]
    rows.append(["total", "", "", "", f"{plan.n_parameters:,}", "", ""])
    if shared:
        columns.append("shared by")
    rows = [row[: len(columns)] for row in rows]
    return _table("Links", columns, rows, right="in,out,parameters")


def _link(link: LinkPlan) -> list[str]:
    users = ", ".join(link.users) if len(link.users) > 1 else ""
    size = [str(link.in_dim), str(link.out_dim), f"{link.n_parameters:,}"]
    return [link.id, link.kind, *size, "yes" if link.differentiable else "no", users]


# --- schedule ---------------------------------------------------------------------------------


def _schedule(plan: Plan) -> str:
    """Who has its turn when; rounds that are alike on one line."""
    lines = []
    turns = groupby(plan.turns(), key=lambda turn: turn.round)
    rounds = [(number, _round(list(steps))) for number, steps in turns]
    for text, alike in groupby(rounds, key=lambda item: item[1]):
        numbers = [number for number, _ in alike]
        first, last = numbers[0], numbers[-1]
        label = f"round {first}" if first == last else f"rounds {first}-{last}"
        lines.append((label, text))
    width = max((len(label) for label, _ in lines), default=0)
    shown = [_wrapped(text, f"  {label:<{width}}  ", " " * (width + 4)) for label, text in lines]
    return "\n".join(["Schedule", *(line for part in shown for line in part)])


def _round(turns: Sequence[Rollout | Decode]) -> str:
    groups = groupby(turns, key=lambda turn: turn.group)
    return " ▸ ".join(_group([_turn(turn) for turn in steps]) for _, steps in groups)


def _group(turns: list[str]) -> str:
    return turns[0] if len(turns) == 1 else f"[{' | '.join(turns)}]"


def _turn(turn: Rollout | Decode) -> str:
    if isinstance(turn, Rollout):
        return turn.agent
    return f"{turn.agent} (decodes the answer)" if turn.final else f"{turn.agent} (writes text)"


def _notes(plan: Plan) -> Iterator[str]:
    first = min((turn.round for turn in plan.turns()), default=1)
    if first > 1:
        left_out = "round 1 is" if first == 2 else f"rounds 1-{first - 1} are"
        yield f"Rounds\n  {left_out} left out: no feedback edge brings anything back"
    outside = {source.name for source in plan.graph.text_sources}
    lines = [
        f"  {edge.id}: " + ("from outside" if edge.source in outside else "not differentiable")
        for edge in plan.graph.edges
        if edge.link.kind == TEXT
    ]
    if lines:
        yield "\n".join(["Text edges", *lines])
