"""A plan as text: a summary for people, and the differences of two plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from latentmas.plan.links import LinkPlan
from latentmas.plan.plan import Plan
from latentmas.plan.steps import Decode, Rollout
from latentmas.spec import TEXT, AgentSpec, EdgeSpec
from latentmas.spec.prompts import prompt_variables

__all__ = ["diff_plans", "summarise"]

WIDTH = 100


def summarise(plan: Plan) -> str:
    """The plan as plain text: backbones, agents, links with exact sizes, schedule."""
    graph = plan.graph
    head = (
        f"{graph.name}: {_count(graph.rounds, 'round')}, {_count(len(graph.agents), 'agent')}, "
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


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> str:
    """A table in plain text; `right` names the columns of numbers, comma-separated."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        numeric = column in right.split(",")
        table.add_column(column, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in rows:
        table.add_row(*row)
    file = StringIO()
    console = Console(
        file=file,
        width=WIDTH,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    console.print(table)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    return "\n".join([title, *(f"  {line}" if line else line for line in lines)]).rstrip()


def _backbones(plan: Plan) -> str:
    rows = []
    for key, backbone in plan.backbones.items():
        info, agents = backbone.info, ", ".join(backbone.agents)
        use = f"loaded once for {agents}" if len(backbone.agents) > 1 else agents
        source = backbone.spec.source
        if backbone.spec.revision:
            source += f"@{backbone.spec.revision}"
        model = (info.model_type, str(info.hidden_size), str(info.num_layers))
        rows.append((key, source, *model, backbone.spec.dtype, use))
    columns = ("key", "source", "type", "width", "layers", "dtype", "agents")
    return _table("Backbones", columns, rows, right="width,layers")


def _agents(plan: Plan) -> str:
    rows = []
    for agent in plan.graph.agents:
        steps = str(plan.graph.steps_of(agent))
        name = f"{agent.name} (output)" if agent.name == plan.output else agent.name
        rows.append((name, agent.backbone, steps, _slots(plan, agent)))
    return _table("Agents", ("name", "backbone", "K", "slots"), rows, right="K")


def _slots(plan: Plan, agent: AgentSpec) -> str:
    bound = {edge.slot: edge for edge in plan.graph.edges if edge.target == agent.name}
    fields = [name for name in plan.graph.inputs if name in prompt_variables(agent)]
    slots = [_slot(edge) for edge in bound.values()]
    return ", ".join([*slots, *fields]) or "-"


def _slot(edge: EdgeSpec) -> str:
    how = [word for word, holds in (("text", edge.link.kind == TEXT), ("next round", edge.delay)) if holds]
    return f"{edge.slot} ← {edge.source}" + (f" ({', '.join(how)})" if how else "")


def _links(plan: Plan) -> str:
    if not plan.links:
        return "Links\n  none"
    rows = [
        (
            link.id,
            link.kind,
            str(link.in_dim),
            str(link.out_dim),
            f"{link.n_parameters:,}",
            "yes" if link.differentiable else "no",
            _users(link),
        )
        for link in plan.links
    ]
    rows.append(("total", "", "", "", f"{plan.n_parameters:,}", "", ""))
    columns = ["id", "kind", "in", "out", "parameters", "differentiable", "shared by"]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]  # type: ignore[misc]
    return _table("Links", columns, rows, right="in,out,parameters")


def _users(link: LinkPlan) -> str:
    return ", ".join(link.users) if len(link.users) > 1 else ""


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
    return "\n".join(["Schedule", *(f"  {label:<{width}}  {text}" for label, text in lines)])


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
    lines = [
        f"  {edge.id}: text, not differentiable"
        for edge in plan.graph.edges
        if edge.link.kind == TEXT
    ]
    if lines:
        yield "\n".join(["Text edges", *lines])


# --- differences ------------------------------------------------------------------------------


def diff_plans(a: Plan, b: Plan) -> list[str]:
    """What changes from `a` to `b`, one line a difference; empty exactly when they are equal.

    Plans are equal when their digests are. Lines read `agent planner: latent_steps 16 -> 8`,
    `link outer.x->y.z: in_dim 64 -> 96`, `agent critic: added`.
    """
    lines = [
        *_fields("", _general(a), _general(b), mark=": "),
        *_named("backbone", _data(a.backbones), _data(b.backbones)),
        *_listed("agent", a.graph.agents, b.graph.agents, "name"),
        *_listed("text source", a.graph.text_sources, b.graph.text_sources, "name"),
        *_listed("edge", a.graph.edges, b.graph.edges, "id"),
        *_listed("link", a.links, b.links, "id"),
        *_steps(a, b),
    ]
    if not lines and a.digest != b.digest:
        lines.append("declared backbones: differ in what no agent uses")
    return lines


def _general(plan: Plan) -> dict[str, Any]:
    graph = plan.graph.model_dump(mode="json")
    return {key: graph[key] for key in ("name", "inputs", "rounds", "latent_steps", "output")}


def _data(models: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {key: model.model_dump(mode="json") for key, model in models.items()}


def _listed(noun: str, a: Sequence[Any], b: Sequence[Any], key: str) -> Iterator[str]:
    old = {getattr(item, key): item for item in a}
    new = {getattr(item, key): item for item in b}
    yield from _named(noun, _data(old), _data(new))
    if list(old) != list(new) and set(old) == set(new):
        yield f"{noun}s: order {', '.join(old)} -> {', '.join(new)}"


def _named(
    noun: str, old: Mapping[str, dict[str, Any]], new: Mapping[str, dict[str, Any]]
) -> Iterator[str]:
    yield from (f"{noun} {name}: removed" for name in old if name not in new)
    yield from (f"{noun} {name}: added" for name in new if name not in old)
    for name in old:
        if name in new:
            yield from (f"{noun} {name}: {line}" for line in _fields("", old[name], new[name]))


def _fields(
    path: str, old: Mapping[str, Any], new: Mapping[str, Any], mark: str = " "
) -> Iterator[str]:
    """Changed fields, nested ones by dotted path."""
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        where = f"{path}{key}"
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _fields(f"{where}.", before, after, mark)
        elif _differ(before, after):
            yield f"{where}{mark}{_change(before, after)}"


def _differ(before: Any, after: Any) -> bool:
    return repr(before) != repr(after)  # so that 1, 1.0 and True are three things


def _change(before: Any, after: Any) -> str:
    texts = [value for value in (before, after) if isinstance(value, str)]
    if any("\n" in text or len(text) > 40 for text in texts):
        return "changed"
    return f"{_plain(before)} -> {_plain(after)}"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "none" if value is None else str(value)


def _steps(a: Plan, b: Plan) -> Iterator[str]:
    if len(a.steps) != len(b.steps):
        yield f"steps: {len(a.steps)} -> {len(b.steps)}"
        return
    for index, (old, new) in enumerate(zip(a.steps, b.steps, strict=True)):
        before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
        yield from (f"step {index}: {line}" for line in _fields("", before, after))
