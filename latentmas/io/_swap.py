"""Replace the backbones of a saved team with others of equal width."""

from __future__ import annotations

from collections.abc import Mapping

from latentmas.backbones import read_info
from latentmas.errors import UnknownNameError, WeightsError
from latentmas.plan import BackboneInfo, Plan
from latentmas.spec import AgentSpec, Backbone, GraphSpec

__all__ = ["Swap", "swap_backbones"]

Swap = Backbone | str
"""The replacement: a backbone, or a source to use in the old declaration."""


def swap_backbones(
    plan: Plan, swaps: Mapping[str, Swap]
) -> tuple[GraphSpec, dict[str, BackboneInfo]]:
    """The graph with the replacements, and their facts by key.

    Args:
        plan: the plan of the saved team.
        swaps: replacements by agent, by key in the graph, or by source. If several apply to an
            agent, an agent's name takes precedence over a key, and a key over a source.

    Raises:
        UnknownNameError: a name is not an agent, key or source.
        WeightsError: LM501 when the widths differ.
    """
    chosen = _by_agent(plan, swaps)
    backbones = dict(plan.graph.backbones)
    keys: dict[str, str] = {}
    infos: dict[str, BackboneInfo] = {}
    for agent, swap in chosen.items():
        old = plan.graph.agent(agent).backbone
        users = plan.backbones[old].agents
        spec = _spec(plan.backbones[old].spec, swap)
        whole = all(chosen.get(user) == swap for user in users)
        key = old if whole else _new_key(f"{old}_{agent}", backbones)
        if key not in infos:
            infos[key] = _fitting(agent, plan, spec)
        keys[agent], backbones[key] = key, spec
    agents = [_on(agent, keys.get(agent.name, agent.backbone)) for agent in plan.graph.agents]
    used = {agent.backbone for agent in agents}
    kept = {key: spec for key, spec in backbones.items() if key in used}
    return plan.graph.replace(agents=agents, backbones=kept), infos


def _by_agent(plan: Plan, swaps: Mapping[str, Swap]) -> dict[str, Swap]:
    """The replacement for each agent that has one."""
    sources: dict[str, list[str]] = {}
    for backbone in plan.backbones.values():
        sources.setdefault(backbone.spec.source, []).extend(backbone.agents)
    kinds: tuple[Mapping[str, list[str]], ...] = (
        sources,
        {key: list(backbone.agents) for key, backbone in plan.backbones.items()},
        {agent.name: [agent.name] for agent in plan.graph.agents},
    )
    known = dict.fromkeys(name for kind in reversed(kinds) for name in kind)
    for name in swaps:
        if name not in known:
            raise UnknownNameError("agent or backbone", name, known)
    heard = [next(kind for kind in reversed(kinds) if name in kind) for name in swaps]
    chosen: dict[str, Swap] = {}
    for kind in kinds:  # the most specific last, so that it wins
        for (name, swap), of in zip(swaps.items(), heard, strict=True):
            if of is kind:
                chosen |= dict.fromkeys(kind[name], swap)
    return {a.name: chosen[a.name] for a in plan.graph.agents if a.name in chosen}


def _spec(old: Backbone, swap: Swap) -> Backbone:
    if isinstance(swap, Backbone):
        return swap
    return Backbone(**(old.model_dump() | {"source": str(swap), "revision": None}))


def _new_key(wanted: str, taken: Mapping[str, object]) -> str:
    while wanted in taken:
        wanted += "_"
    return wanted


def _on(agent: AgentSpec, key: str) -> AgentSpec:
    return agent.model_copy(update={"backbone": key})


def _fitting(agent: str, plan: Plan, spec: Backbone) -> BackboneInfo:
    """Facts about the new backbone, which must have the old one's width."""
    old = plan.backbones[plan.graph.agent(agent).backbone]
    info = read_info(spec)
    if info.hidden_size != old.info.hidden_size:
        raise WeightsError(
            f"LM501 agent {agent!r}: its links were trained on {old.spec.source!r} of width "
            f"{old.info.hidden_size}, but {spec.source!r} has width {info.hidden_size}; choose a "
            f"backbone of width {old.info.hidden_size}, or train links for the new width"
        )
    return info
