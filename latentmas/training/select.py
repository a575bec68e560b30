"""Which links and adapters learn, and whether the loss can reach them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from latentmas.errors import GraphError, LatentMASError, Problem, UnknownNameError
from latentmas.plan import Decode, LinkPlan, Plan, Rollout
from latentmas.runtime import System
from latentmas.spec import LoRA

__all__ = [
    "check_adapters_reach",
    "check_reach",
    "choose_adapters",
    "choose_links",
    "freeze_all_but",
]

GROUPS = ("outer", "inner", "all")


def choose_links(
    plan: Plan, wanted: str | Sequence[str] | bool, *, optional: bool = False
) -> list[LinkPlan]:
    """The links that `train_links` names, those without weights left out.

    A link is named by its id, or by the agent or edge that it serves.

    Args:
        plan: Plan of the team.
        wanted: Group, ids, agents or edges; True is all links, and False none.
        optional: Whether there need not be any, because something else learns.

    Raises:
        UnknownNameError: an id that the plan does not have.
        LatentMASError: LM402, nothing is left to train.
    """
    if isinstance(wanted, bool):
        wanted = "all" if wanted else []
    if isinstance(wanted, str) and wanted in GROUPS:
        chosen = [link for link in plan.links if wanted in ("all", link.role)]
    else:
        ids = [wanted] if isinstance(wanted, str) else list(wanted)
        known = {user: link.id for link in plan.links for user in (*link.users, link.id)}
        for id in ids:
            if id not in known:
                raise UnknownNameError("link", id, (*GROUPS, *known))
        chosen = [plan.link(known[id]) for id in ids]
    chosen = [link for link in chosen if link.n_parameters]
    if not chosen and not optional:
        raise LatentMASError(f"LM402: train_links={wanted!r} leaves nothing to train")
    return chosen


def choose_adapters(
    plan: Plan, wanted: Any, there: Mapping[str, LoRA] | None = None
) -> dict[str, LoRA]:
    """The adapters that `train_adapters` describes, by agent.

    Args:
        plan: Plan of the team.
        wanted: True for all agents; an agent or several; fields of `LoRA`, for all agents; or
            agents with their own fields. Agents without a turn are left out where all are meant.
        there: Descriptions of adapters that agents have, which are the defaults.

    Raises:
        UnknownNameError: The team has no such agent.
        LatentMASError: A description does not fit.
    """
    known = [agent.name for agent in plan.graph.agents]
    turns = {turn.agent for turn in plan.turns()}
    everyone = [name for name in known if name in turns]
    given: dict[str, Any] = {}
    if isinstance(wanted, LoRA) or (
        isinstance(wanted, Mapping)
        and wanted
        and set(wanted) <= set(LoRA.model_fields) - set(known)
    ):
        given = dict.fromkeys(everyone, LoRA.read(wanted, "train_adapters"))
    elif isinstance(wanted, Mapping):
        given = {str(name): own for name, own in wanted.items() if own is not False}
    elif isinstance(wanted, bool) or wanted is None:
        given = dict.fromkeys(everyone) if wanted else {}
    else:
        given = dict.fromkeys([wanted] if isinstance(wanted, str) else map(str, wanted))
    for name in given:
        if name not in known:
            raise UnknownNameError("agent", name, (*known, *LoRA.model_fields))
    return {
        name: (there or {}).get(name, LoRA())
        if given[name] in (None, True)
        else LoRA.read(given[name], f"train_adapters[{name!r}]")
        for name in known
        if name in given
    }


def check_adapters_reach(plan: Plan, agents: Collection[str]) -> None:
    """The states of every agent have a differentiable path to the loss at the depth of `plan`.

    Raises:
        GraphError: An LM401 problem for each agent that has none.
    """
    reached: set[str] = set()
    able: set[str] = set()
    for step in reversed(plan.steps):
        final = isinstance(step, Decode) and step.final
        if final or (step.output in reached and not isinstance(step, Decode)):
            reached.update(step.reads)
            if final or isinstance(step, Rollout):
                able.add(step.agent)
    message = f"no differentiable path leads from it to the loss in {plan.graph.rounds} round(s)"
    hint = "train with more rounds, replace text edges on the way, or leave it out"
    problems = [
        Problem("LM401", f"adapter of {name}", message, f"{hint} of train_adapters")
        for name in agents
        if name not in able
    ]
    if problems:
        raise GraphError(problems, plan.graph.name)


def check_reach(plan: Plan, links: Sequence[LinkPlan]) -> None:
    """Every link has a differentiable path to the loss at the depth of `plan`.

    Raises:
        GraphError: an LM401 problem for each that has none.
    """
    problems = []
    for link in links:
        if plan.link(link.id).differentiable:
            continue
        message = (
            f"no differentiable path leads from it to the loss in {plan.graph.rounds} round(s)"
        )
        hint = (
            "train with more rounds, replace text edges on the way, or leave it out of train_links"
        )
        problems.append(Problem("LM401", f"link {link.id}", message, hint))
    if problems:
        raise GraphError(problems, plan.graph.name)


def freeze_all_but(system: System, ids: Collection[str], adapters: Collection[str] = ()) -> None:
    """Let the named links, and the named agents' adapters, learn and freeze the others."""
    for id in system.link_ids():
        system.link(id).requires_grad_(id in ids)
    for agent, adapter in system.agent_adapters().items():
        adapter.requires_grad_(agent in adapters)
