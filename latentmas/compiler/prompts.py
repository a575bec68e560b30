"""Checks prompts by dry rendering: variables bound once, feedback guarded, slots placed."""

from __future__ import annotations

import re
from collections import Counter

from jinja2 import TemplateRuntimeError, TemplateSyntaxError, UndefinedError
from jinja2.exceptions import SecurityError

from latentmas.compiler.mentions import braces_hint, broken, variables
from latentmas.errors import Problem, closest
from latentmas.prompts import (
    SlotMisuseError,
    check_template,
    misused_variables,
    placed_variables,
    render_prompt,
)
from latentmas.spec import TEXT, AgentSpec, EdgeSpec, GraphSpec

__all__ = ["prompt_problems"]


def prompt_problems(graph: GraphSpec) -> list[Problem]:
    """LM103, LM104, LM105, LM115 (binding) and LM301, LM302, LM303 (rendering)."""
    problems: list[Problem] = []
    for agent in graph.agents:
        edges = [edge for edge in graph.edges if edge.target == agent.name and edge.slot]
        broken = _broken(agent)
        if broken is not None:
            problems.append(broken)
            continue
        problems += _unbound(graph, agent, edges)
        problems += _bound_twice(graph, agent, edges)
        problems += _unused_edges(agent, edges)
        problems += _dry_render(graph, agent, edges)
    return problems + _unused_inputs(graph)


def _broken(agent: AgentSpec) -> Problem | None:
    """LM301 for a template that cannot be compiled."""
    path = f"agent {agent.name}"
    try:
        check_template(agent)
    except TemplateSyntaxError as error:
        system = error.source is not None and error.source == agent.system != agent.prompt
        where = f"line {error.lineno}" + (" of the system prompt" if system else "")
        message = f"{where}: {str(error.message).rstrip('.')}"
        return Problem("LM301", path, message, _syntax_hint(error))
    return None


def _syntax_hint(error: TemplateSyntaxError) -> str:
    """The hint, quoting the faulty line of the template."""
    how = "a variable is {{ name }}, a condition {% if name %}…{% endif %}"
    lines = (error.source or "").splitlines()
    if not 0 < error.lineno <= len(lines):
        return f"correct the template: {how}"
    return f"correct {lines[error.lineno - 1].strip()!r:.100}; {how}"


def _unbound(graph: GraphSpec, agent: AgentSpec, edges: list[EdgeSpec]) -> list[Problem]:
    bound = {edge.slot for edge in edges if edge.slot}
    problems = []
    for name in sorted(variables(agent) - set(graph.inputs) - bound):
        guess = closest(name, graph.inputs)
        hint = f"did you mean the input {{{{ {guess} }}}}? " if guess else ""
        call = f'bind it with graph.connect(source, "{agent.name}.{name}"), or add it to inputs'
        entry = f"under edges, add {{source: …, target: {agent.name}, slot: {name}}}"
        in_file = f"{hint}{entry}, or add {name} to inputs"
        message = f"prompt variable {{{{ {name} }}}} is not bound by an edge or an input"
        problems.append(Problem("LM103", f"agent {agent.name}", message, hint + call, in_file))
    return problems


def _bound_twice(graph: GraphSpec, agent: AgentSpec, edges: list[EdgeSpec]) -> list[Problem]:
    problems = []
    for slot, count in Counter(edge.slot for edge in edges if edge.slot).items():
        own = [edge for edge in edges if edge.slot == slot]
        sources = ", ".join(repr(edge.source) for edge in own)
        path = f"agent {agent.name}"
        if count > 1 and not _combine(own):
            hint = "give each edge its own slot in the prompt, or set on all of them combine="
            hint += '"concat" (or "mean"), from different sources and either text or latents'
            problems.append(Problem("LM104", path, f"slot {slot!r} is bound by {sources}", hint))
        if slot in graph.inputs:
            message = f"slot {slot!r} is bound by an input and by {sources}"
            problems.append(Problem("LM104", path, message, "rename the slot or the input"))
    return problems


def _combine(edges: list[EdgeSpec]) -> bool:
    """Whether the edges into one slot agree on how they are combined."""
    ways = {(edge.combine, edge.link.kind == TEXT) for edge in edges}
    sources = {edge.source for edge in edges}
    return len(ways) == 1 and edges[0].combine is not None and len(sources) == len(edges)


def _unused_edges(agent: AgentSpec, edges: list[EdgeSpec]) -> list[Problem]:
    known, problems = variables(agent), []
    for edge in edges:
        if edge.slot in known:
            continue
        guess = closest(str(edge.slot), sorted(known))
        hint = f"did you mean slot {guess!r}? " if guess else ""
        hint += f"write {{{{ {edge.slot} }}}} where the message belongs, or remove the edge"
        hint = braces_hint([agent], str(edge.slot)) or hint
        message = f"the prompt of {agent.name!r} has no slot {edge.slot!r}"
        problems.append(Problem("LM105", f"edge {edge.id}", message, hint))
    return problems


def _dry_render(graph: GraphSpec, agent: AgentSpec, edges: list[EdgeSpec]) -> list[Problem]:
    path = f"agent {agent.name}"
    used = [edge for edge in edges if edge.slot in variables(agent)]
    problems = _misplaced(agent, used)
    fresh = {edge.slot for edge in used if not edge.delay}  # filled in round 1
    late = [str(edge.slot) for edge in used if edge.delay and edge.slot not in fresh]
    delayed = list(dict.fromkeys(late))
    for slot in _unguarded(graph, agent, used, delayed):
        message = f"slot {slot!r} is empty in round 1, and the prompt places it unguarded"
        hint = f"write {{% if {slot} %}}… {{{{ {slot} }}}} …{{% endif %}}"
        problems.append(Problem("LM302", path, message, hint))
    try:
        _render(graph, agent, used, set())
    except SlotMisuseError as error:
        problems += [] if problems else [Problem("LM303", path, str(error), BARE)]
    except (SecurityError, TemplateRuntimeError) as error:
        if not isinstance(error, UndefinedError):  # an unbound variable is reported as LM103
            hint = "remove this from the template; prompts run in a sandbox with limits"
            problems.append(Problem("LM301", path, str(error), hint))
    except Exception:  # caused by the stand-in values; real values may work
        pass
    return problems


BARE = "place the slot as it is: {{ slot }}"


def _misplaced(agent: AgentSpec, edges: list[EdgeSpec]) -> list[Problem]:
    """LM303 for slots that are used in any way other than being placed."""
    path, problems = f"agent {agent.name}", []
    for edge in edges:
        if edge.link.kind != TEXT and edge.slot in misused_variables(agent):
            message = f"slot {edge.slot!r} holds latents: it can only be placed or tested"
            problems.append(Problem("LM303", path, message, BARE))
        elif edge.slot not in placed_variables(agent):
            hint = f"write {{{{ {edge.slot} }}}} where the message belongs"
            problems.append(
                Problem("LM303", path, f"slot {edge.slot!r} is tested but never placed", hint)
            )
    return problems


def _unguarded(
    graph: GraphSpec, agent: AgentSpec, edges: list[EdgeSpec], delayed: list[str]
) -> list[str]:
    """Slots that the prompt places in round 1, when all delayed slots are empty."""
    found: list[str] = []
    while len(found) < len(delayed):
        try:
            _render(graph, agent, edges, set(delayed) - set(found))
        except UndefinedError as error:
            culprits = [s for s in delayed if s not in found and f"'{s}'" in str(error)]
            if not culprits:
                return found  # an unbound variable: LM103
            found += culprits
        except Exception:  # as in _dry_render: caused by the stand-in values
            return found
        else:
            return found
    return found


def _render(graph: GraphSpec, agent: AgentSpec, edges: list[EdgeSpec], absent: set[str]) -> None:
    latent = {str(e.slot) for e in edges if e.link.kind != TEXT} - absent
    texts = {str(e.slot): "text" for e in edges if e.link.kind == TEXT and e.slot not in absent}
    values = {name: _Anything("value") for name in graph.inputs} | texts
    render_prompt(agent, values, sorted(latent))


class _Anything(str):
    """Stand-in for a sample field: a string that also supports `field.name` and `field[0]`."""

    def __getattr__(self, name: str) -> _Anything:
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: object) -> _Anything:
        return self


def _unused_inputs(graph: GraphSpec) -> list[Problem]:
    used = frozenset[str]().union(*map(_perhaps_used, graph.agents))
    problems = []
    for name in graph.inputs:
        if name not in used:
            hint = f"write {{{{ {name} }}}} into a prompt, or remove it from inputs"
            hint = braces_hint(graph.agents, name) or hint
            problems.append(Problem("LM115", f"input {name}", "no prompt uses it", hint))
    sources = {edge.source for edge in graph.edges}
    for source in graph.text_sources:
        if source.name not in sources:
            hint = f'graph.connect("{source.name}", "agent.slot"), or remove it'
            in_file = f"under edges, add {{source: {source.name}, target: …}}, or remove it"
            path = f"text source {source.name}"
            problems.append(Problem("LM115", path, "no edge uses it", hint, in_file))
    return problems


def _perhaps_used(agent: AgentSpec) -> frozenset[str]:
    """Variables of a prompt; if it cannot be parsed, every word, since any may be a variable."""
    if not broken(agent):
        return variables(agent)
    return frozenset(re.findall(r"\w+", f"{agent.prompt} {agent.system or ''}"))
