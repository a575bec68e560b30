"""The inner loop as an entry of the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.training.loops import loops
from latentmas.training.loops._base import Choice, Loop, Start, listed

if TYPE_CHECKING:
    from latentmas.training.config import InnerConfig
    from latentmas.training.inner import InnerTrainer

__all__ = ["InnerLoop"]


@loops.register("inner")
class InnerLoop(Loop):
    """Inner links, from texts of the agents."""

    summary = "Train inner links, which turn an agent's states into its own input embeddings."
    order, steps, epochs = 10, 200, 10
    flags = ("targets",)

    @staticmethod
    def parts() -> tuple[type[InnerTrainer], type[InnerConfig]]:
        """`InnerTrainer` and `InnerConfig`."""
        from latentmas.training.config import InnerConfig
        from latentmas.training.inner import InnerTrainer

        return InnerTrainer, InnerConfig

    @staticmethod
    def choose(start: Start) -> Choice:
        """Inner links at a random start need it; it needs a text for each agent."""
        inner = [link.id for link in start.links("inner")]
        random = [id for id in inner if id in start.random]
        if not inner:
            return Choice(False, "no inner link has weights")
        if not random:
            return Choice(False, "the inner links work from their start, or were trained before")
        if start.rolls_from_random:
            return Choice(False, "the rollout loop begins with links at a random start")
        texts, agents = start.texts(), [agent.name for agent in start.plan.graph.agents]
        left = [name for name in agents if name not in texts]
        if left and start.answer_field not in start.fields:
            return Choice(
                False,
                f"the rows have neither texts of {listed(left)} nor {start.answer_field!r} to "
                "learn from",
            )
        said = [f"{name} from {field!r}" for name, field in texts.items()]
        said += (
            [f"{'others' if said else 'all agents'} from {start.answer_field!r}"] if left else []
        )
        return Choice(True, f"{listed(random)} start at random; texts: {', '.join(said)}")
