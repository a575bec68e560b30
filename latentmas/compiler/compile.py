"""The ordered list of compiler passes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from latentmas.compiler.backbones import backbone_problems
from latentmas.compiler.gradient import differentiable_links
from latentmas.compiler.names import name_problems
from latentmas.compiler.prompts import prompt_problems
from latentmas.compiler.prune import prune
from latentmas.compiler.ranges import range_problems
from latentmas.compiler.schedule import schedule
from latentmas.compiler.share import share
from latentmas.compiler.slots import resolve_slots
from latentmas.compiler.structure import structure_problems
from latentmas.compiler.tools import tool_problems
from latentmas.compiler.wire import wire
from latentmas.errors import GraphError
from latentmas.plan import BackboneInfo, LinkPlan, Plan, Step, verify_steps
from latentmas.spec import GraphSpec

__all__ = ["compile_graph", "reschedule"]


def compile_graph(
    spec: GraphSpec,
    *,
    facts: Mapping[str, BackboneInfo] | None = None,
    models: Mapping[str, object] | None = None,
    tools: Collection[str] | None = None,
    tools_at_load: bool = True,
) -> Plan:
    """Compile a declaration to a plan.

    Args:
        spec: The declaration.
        facts: Known facts about backbones, by key or source; the others are read from the models'
            configuration files. At least one must match a backbone of the graph.
        models: Models that are handed over, each with its tokenizer, by name.
        tools: Names of tools passed as functions. None: tools are checked by `load`.
        tools_at_load: Same as for `Graph.compile`.

    Raises:
        GraphError: The graph has problems; the error lists those of all checks and passes.
    """
    graph, slot_problems = resolve_slots(spec)
    problems = [
        *name_problems(graph),
        *range_problems(graph),
        *structure_problems(graph),
        *slot_problems,
        *prompt_problems(graph),
        *backbone_problems(graph),
        *([] if tools is None else tool_problems(graph, tools, at_load=tools_at_load)),
    ]
    graph, backbones, share_problems = share(graph, facts or {}, models)
    links, wire_problems = wire(graph, backbones)
    problems += [*share_problems, *wire_problems]
    if problems:
        raise GraphError(dict.fromkeys(problems), spec.name)
    steps = prune(schedule(graph, links))
    plan = Plan(graph=graph, backbones=backbones, links=_marked(links, steps), steps=steps)
    verify_steps(plan.steps, plan.links, plan.graph)
    return plan


def reschedule(plan: Plan, *, rounds: int | None = None, latent_steps: int | None = None) -> Plan:
    """The plan for a different number of rounds or latent steps: same links, different steps.

    Raises:
        GraphError: A number is out of range (LM113).
    """
    graph = plan.graph
    if rounds is not None:
        graph = graph.replace(rounds=rounds)
    if latent_steps is not None:
        agents = [agent.model_copy(update={"latent_steps": None}) for agent in graph.agents]
        graph = graph.replace(latent_steps=latent_steps, agents=agents)
    problems = range_problems(graph)
    if problems:
        raise GraphError(problems, graph.name)
    steps = prune(schedule(graph, plan.links))
    changes = {"graph": graph, "steps": steps, "links": _marked(plan.links, steps)}
    return plan.model_copy(update=changes)


def _marked(links: tuple[LinkPlan, ...], steps: tuple[Step, ...]) -> tuple[LinkPlan, ...]:
    reached = differentiable_links(steps, links)
    return tuple(link.model_copy(update={"differentiable": link.id in reached}) for link in links)
