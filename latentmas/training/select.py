"""Which links learn, and whether the loss can reach them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from latentmas.errors import GraphError, LatentMASError, Problem, UnknownNameError
from latentmas.plan import LinkPlan, Plan
from latentmas.runtime import System

__all__ = ["check_reach", "choose_links", "freeze_all_but"]

GROUPS = ("outer", "inner", "all")


def choose_links(plan: Plan, wanted: str | Sequence[str]) -> list[LinkPlan]:
    """The links that `train_links` names, those without weights left out.

    A link is named by its id, or by the agent or edge that it serves.

    Raises:
        UnknownNameError: an id that the plan does not have.
        LatentMASError: LM402, nothing is left to train.
    """
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
    if not chosen:
        raise LatentMASError(f"LM402: train_links={wanted!r} leaves nothing to train")
    return chosen


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


def freeze_all_but(system: System, ids: Collection[str]) -> None:
    """Let the named links learn and freeze the others."""
    for id in system.link_ids():
        system.link(id).requires_grad_(id in ids)
