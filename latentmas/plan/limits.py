"""Limits on generated tokens: the run's, an agent's own, or the default."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral

from latentmas.errors import LatentMASError, UnknownNameError
from latentmas.plan.plan import Plan
from latentmas.plan.steps import Decode

__all__ = ["DEFAULT_MAX_NEW_TOKENS", "TokenLimit", "answer_limits", "with_limits"]

DEFAULT_MAX_NEW_TOKENS = 256
"""Maximum number of tokens of an agent if neither it nor the run sets a limit."""
TokenLimit = int | Mapping[str, int] | None
"""A limit for all agents, or limits by agent. None: the agents' own."""


def with_limits(plan: Plan, limit: TokenLimit) -> Plan:
    """The plan with a token limit on every decode.

    An explicit limit takes precedence over the agent's own, which takes precedence over the
    default.

    Args:
        plan: Plan whose decodes to limit.
        limit: Limit for all agents, or by agent.

    Raises:
        LatentMASError: A limit is not a whole number of at least 1.
        UnknownNameError: The plan has no such agent.
    """
    asked = _by_agent(plan, limit)
    steps = tuple(
        step.model_copy(
            update={
                "max_new_tokens": asked.get(step.agent)
                or step.max_new_tokens
                or DEFAULT_MAX_NEW_TOKENS
            }
        )
        if isinstance(step, Decode)
        else step
        for step in plan.steps
    )
    return plan.model_copy(update={"steps": steps})


def _by_agent(plan: Plan, limit: TokenLimit) -> dict[str, int]:
    names = [agent.name for agent in plan.graph.agents]
    if limit is None:
        return {}
    if not isinstance(limit, Mapping):
        return dict.fromkeys(names, _whole("max_new_tokens", limit))
    for name in limit:
        if name not in names:
            raise UnknownNameError("agent in max_new_tokens:", name, names)
    return {name: _whole(f"max_new_tokens[{name!r}]", value) for name, value in limit.items()}


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
        raise LatentMASError(
            f"{name} is {value!r:.60}; give a whole number of at least 1, limits by agent, or None"
        )
    return int(value)


def answer_limits(plan: Plan, limit: TokenLimit) -> TokenLimit:
    """A limit for the agents of a team that generate text, and for no others.

    The text twin of the team then keeps its own limits for what other agents write.

    Args:
        plan: Plan of the team.
        limit: Limit for all agents; limits by agent and None are returned unchanged.
    """
    if limit is None or isinstance(limit, Mapping):
        return limit
    writers = sorted({step.agent for step in plan.steps if isinstance(step, Decode)})
    return dict.fromkeys(writers, limit)
