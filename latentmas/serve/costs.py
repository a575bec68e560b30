"""What a run cost, as numbers for clients."""

from __future__ import annotations

from latentmas.runtime import RunResult

__all__ = ["COSTS", "costs_of"]

COSTS = ("prompt_tokens", "latent_steps", "new_tokens", "tool_calls")
"""Names of the counts, which are fields of `StepRecord`."""


def costs_of(result: RunResult) -> dict[str, int]:
    """Counts of a run, all agents and rounds together."""
    return {name: sum(getattr(record, name) for record in result.accounting) for name in COSTS}
