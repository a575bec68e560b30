"""What a run of a loaded system will take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from latentmas.runtime.samples import Sample, check_samples

if TYPE_CHECKING:
    from latentmas.cost import Explanation, Hardware
    from latentmas.engine import Executor
    from latentmas.plan import TokenLimit
    from latentmas.runtime.system import System

__all__ = ["Estimating"]


class Estimating:
    """The method of `System` that forwards to `latentmas.cost`, which lies above."""

    def explain(
        self,
        samples: Sequence[Sample],
        hardware: str | Hardware = "h200",
        *,
        rounds: int | None = None,
        latent_steps: int | None = None,
        max_new_tokens: TokenLimit = None,
        executor: str | Executor | None = None,
    ) -> Explanation:
        """What a run over samples, as one batch, takes; as `Plan.explain`, with counted prompts.

        Args:
            samples: strings or mappings of input fields.
            hardware: a name, or a machine of your own.
            rounds: R; None takes the plan's.
            latent_steps: K for every agent; None takes the plan's.
            max_new_tokens: tokens that each agent writes; as in `run`.
            executor: executor whose memory to estimate; None takes the system's. `reference` and
                executors of your own count as `cached`.

        Raises:
            DataError: the samples are empty, one lacks a field, or a prompt cannot be rendered.
            GraphError: rounds or latent steps out of range.
            UnknownNameError: no hardware has that name.
            LatentMASError: the hardware has no speed for a backbone's type.
        """
        from latentmas.cost import explain_samples

        system = cast("System", self)
        plan = system.plan
        if rounds is not None or latent_steps is not None:
            plan = plan.replace(rounds=rounds, latent_steps=latent_steps)
        return explain_samples(
            system,
            plan,
            check_samples(plan, samples),
            hardware,
            max_new_tokens=max_new_tokens,
            executor=system._executor(executor),
        )
