"""Graphs and buffers of a loaded system, made before it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from latentmas.arguments import whole
from latentmas.engine import ExpectedSteps, WarmUp
from latentmas.generation import Sampling, chooser_for
from latentmas.plan import (
    DEFAULT_MAX_NEW_TOKENS,
    Decode,
    Plan,
    Rollout,
    rollouts_together,
    with_limits,
)

if TYPE_CHECKING:
    from latentmas.engine import Executor
    from latentmas.plan import TokenLimit
    from latentmas.runtime.system import System

__all__ = ["Warming"]


class Warming:
    """The method of `System` that captures beforehand what runs will replay."""

    def warm_up(
        self,
        *,
        batch_size: int = 32,
        max_length: int = 512,
        latent_steps: int | None = None,
        max_new_tokens: TokenLimit = None,
        num_return_sequences: int = 1,
        top_k: int | None = None,
        executor: str | Executor | None = None,
    ) -> WarmUp:
        """Capture all CUDA graphs that a run within these limits replays, and make its buffers.

        A run within the limits then captures nothing. One that exceeds them is as correct, and its
        steps beyond them run without a graph. The buffers stay until the system goes or its weights
        move; their size is bounded by these limits. With executors that capture no graphs, nothing
        is done.

        Args:
            batch_size: Maximum number of samples in progress at once, as in `run`.
            max_length: Number of positions of the longest prompt, messages included.
            latent_steps: K for every agent; None takes the plan's.
            max_new_tokens: Maximum number of tokens that each agent writes, as in `run`.
            num_return_sequences: Number of answers to each sample.
            top_k: For runs that draw tokens with a `top_k`; temperature and other filters may
                differ between them. None: for runs that take the most likely tokens, and for draws
                that are not captured, which are all others. Runs of both kinds need two calls.
            executor: Name of the executor, or an executor. None takes the system's.

        Returns:
            Number of captures and graphs, bytes and seconds, or the reason why nothing was done.

        Raises:
            LatentMASError: A number is below 1, or the executor cannot run these backbones.
            GraphError: The number of latent steps is out of range.
            UnknownNameError: The executor is unknown.
        """
        system = cast("System", self)
        for name, value in (
            ("batch_size", batch_size),
            ("max_length", max_length),
            ("num_return_sequences", num_return_sequences),
            ("top_k", 1 if top_k is None else top_k),
        ):
            whole(name, value)
        plan = system.plan
        if latent_steps is not None:
            plan = plan.replace(latent_steps=latent_steps)
        plan = with_limits(plan, max_new_tokens)
        chosen = system._executor(executor)
        sampling = Sampling(do_sample=top_k is not None, top_k=top_k)
        expected = [
            *_rollouts(system, plan, chosen, batch_size, max_length),
            *_texts(system, plan, batch_size, max_length, num_return_sequences, sampling),
        ]
        return chosen.warm_up(expected)


def _rollouts(
    system: System, plan: Plan, executor: Executor, batch: int, length: int
) -> Iterator[ExpectedSteps]:
    """Latent steps of all rounds, each kind once."""

    def share(one: str, other: str) -> bool:
        return system.backbone_of(one) is system.backbone_of(other)

    known, done = set[object](), set[int]()
    for index, step in enumerate(plan.steps):
        if not isinstance(step, Rollout) or index in done:
            continue
        together = rollouts_together(plan.steps, index, share) if executor.groups else [index]
        done.update(together)
        rolls = [roll for i in together if isinstance(roll := plan.steps[i], Rollout)]
        backbone = system.backbone_of(step.agent)
        links = [system.link(roll.inner) for roll in rolls]
        key = (backbone, step.latent_steps, *links)
        if key not in known:
            known.add(key)
            columns = length + step.latent_steps
            yield ExpectedSteps(backbone, "turn", batch, columns, links=links)


def _texts(
    system: System, plan: Plan, batch: int, length: int, sequences: int, sampling: Sampling
) -> Iterator[ExpectedSteps]:
    """Tokens of texts. While the answers are written, other samples go through their turns."""
    chooser = chooser_for([sampling])
    answering = system.backbone_of(plan.steps[-1].agent)
    for step in plan.steps:
        if not isinstance(step, Decode):
            continue
        backbone, rows = system.backbone_of(step.agent), batch * (sequences if step.final else 1)
        limit = DEFAULT_MAX_NEW_TOKENS if step.max_new_tokens is None else step.max_new_tokens
        yield ExpectedSteps(backbone, "text", rows, length + limit, chooser=chooser)
        if step.final:
            yield ExpectedSteps(backbone, "turn", rows, length, captured=False)
        elif backbone is answering:
            yield ExpectedSteps(backbone, "text", rows, length + limit, place=1, chooser=chooser)
