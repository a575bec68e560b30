"""The graph of a single agent: the output agent's backbone, shown all that the team is shown."""

from __future__ import annotations

import re

from latentmas.plan import Plan
from latentmas.prompts import prompt_variables, template_variables
from latentmas.spec import AgentSpec, EdgeSpec, Graph, GraphSpec
from latentmas.templates import TEAM_SYSTEM

__all__ = ["outside_edges", "single_agent", "single_prompt", "single_system"]


def single_agent(
    plan: Plan,
    *,
    prompt: str | None = None,
    system: str | None = None,
    max_new_tokens: int | None = None,
) -> Graph:
    """A graph of the output agent alone.

    Args:
        plan: Plan of the team.
        prompt: Prompt of the agent; None derives one from the output agent's, see `single_prompt`.
        system: System turn; None derives it from the output agent's, and an empty text leaves it
            out.
        max_new_tokens: Maximum number of tokens in the answer; None keeps the agent's limit.
    """
    spec = plan.graph
    agent = spec.agent(plan.output)
    system = single_system(spec, agent) if system is None else system
    changed = {
        "prompt": single_prompt(spec, agent) if prompt is None else prompt,
        "system": system or None,
        "max_new_tokens": max_new_tokens or agent.max_new_tokens,
    }
    alone = agent.model_copy(update=changed)
    read = prompt_variables(alone)
    edges = [edge for edge in outside_edges(spec, agent.name) if edge.slot in read]
    heard = {edge.source for edge in edges}
    sources = [source for source in spec.text_sources if source.name in heard]
    return Graph.from_spec(
        spec.replace(
            name=f"{spec.name}-single",
            rounds=1,
            inputs=[name for name in spec.inputs if name in read],
            agents=[alone.model_dump()],
            edges=[edge.model_dump() for edge in edges],
            text_sources=[source.model_dump() for source in sources],
            backbones={k: v for k, v in spec.backbones.items() if k == agent.backbone},
        )
    )


def single_prompt(spec: GraphSpec, agent: AgentSpec) -> str:
    """The output agent's prompt without its messages, and with every input of the graph.

    A line that is only a label and the slot of a message is left out; elsewhere the slot is empty.
    Inputs and text sources that the agent is not shown stand in front, a line for each.

    Args:
        spec: Declaration of the team.
        agent: Its output agent.
    """
    prompt = _without_messages(spec, agent, agent.prompt)
    shown = template_variables(prompt) | template_variables(single_system(spec, agent))
    outside = [str(edge.slot) for edge in outside_edges(spec, agent.name)]
    lines = [
        f"{name.replace('_', ' ').capitalize()}: {{{{ {name} }}}}\n"
        for name in (*spec.inputs, *outside)
        if name not in shown
    ]
    return "".join(lines) + prompt


def single_system(spec: GraphSpec, agent: AgentSpec) -> str:
    """The output agent's system turn without its messages, and without the templates' sentence.

    Args:
        spec: Declaration of the team.
        agent: Its output agent.
    """
    found = _without_messages(spec, agent, agent.system or "")
    return found.replace(f"{TEAM_SYSTEM}\n", "").replace(TEAM_SYSTEM, "")


def outside_edges(spec: GraphSpec, agent: str) -> list[EdgeSpec]:
    """An edge into an agent from each text source of the team, those that it has first.

    Args:
        spec: Declaration of the team.
        agent: Name of the agent.
    """
    sources = {source.name for source in spec.text_sources}
    edges = [edge for edge in spec.edges if edge.source in sources]
    found = {edge.source: edge for edge in edges if edge.target == agent}
    for edge in edges:
        if edge.source not in found:
            changed = {"target": agent, "slot": edge.source}
            found[edge.source] = edge.model_copy(update=changed)
    return list(found.values())


def _without_messages(spec: GraphSpec, agent: AgentSpec, text: str) -> str:
    """A template of the agent in which the slots of messages are left out, or empty."""
    outside = {edge.slot for edge in outside_edges(spec, agent.name)}
    slots = template_variables(text) - set(spec.inputs) - outside
    for slot in slots:
        label = r"^[^{}\n]*\{\{-?\s*" + re.escape(slot) + r"\s*-?\}\}[^\S\n]*(\n|\Z)"
        text = re.sub(label, "", text, flags=re.MULTILINE)
    left = sorted(slots & template_variables(text))
    return "".join(f'{{% set {slot} = "" %}}' for slot in left) + text
