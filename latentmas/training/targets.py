"""Which field of a row holds each agent's own text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentmas.errors import DataError
from latentmas.runtime import System
from latentmas.training.data import TrainingRows

__all__ = ["find_targets"]


def find_targets(
    system: System, wanted: Mapping[str, str] | str | None, answer_field: str, rows: TrainingRows
) -> dict[str, str]:
    """Field by agent: as wanted, else the one called like the agent, else the answer's.

    Raises:
        DataError: `wanted` names an unknown agent.
    """
    agents = [agent.name for agent in system.plan.graph.agents]
    if isinstance(wanted, str):
        return dict.fromkeys(agents, wanted)
    given: Mapping[str, Any] = wanted or {}
    for name in given:
        if name not in agents:
            raise DataError(
                f"targets names {name!r}, which is not an agent; agents: {', '.join(agents)}"
            )
    first = rows[0][1] if len(rows) else {}
    inputs = system.plan.graph.inputs
    own = {name for name in agents if name in first and name not in inputs}
    return {n: str(given.get(n, n if n in own else answer_field)) for n in agents}
