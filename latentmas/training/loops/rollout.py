"""The rollout loop as an entry of the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.training.loops import loops
from latentmas.training.loops._base import Choice, Loop, Start, listed

if TYPE_CHECKING:
    from latentmas.training.config import RolloutConfig
    from latentmas.training.rollouts import RolloutTrainer

__all__ = ["RolloutLoop"]

KEPT = {"refresh_steps": 100, "learning_rate": 3e-3, "max_grad_norm": 1.0}
"""Settings for links at a random start: kept rollouts, measured on three seeds (decision 0010)."""
KEPT_STEPS, KEPT_EPOCHS = 600, 75
"""Steps on kept rollouts cost little: no model runs in them."""


@loops.register("rollout")
class RolloutLoop(Loop):
    """Inner and outer links, on the states that their own outputs bring about."""

    summary = "Train links on their own outputs, so that latent steps stay on course."
    order, steps, epochs = 30, 200, 10
    flags = ("targets", "train_links", "passes")

    @staticmethod
    def parts() -> tuple[type[RolloutTrainer], type[RolloutConfig]]:
        """`RolloutTrainer` and `RolloutConfig`."""
        from latentmas.training.config import RolloutConfig
        from latentmas.training.rollouts import RolloutTrainer

        return RolloutTrainer, RolloutConfig

    @staticmethod
    def choose(start: Start) -> Choice:
        """Inner links at a random start drift as soon as an agent takes a second latent step."""
        inner = [link.id for link in start.links("inner")]
        random = [id for id in inner if id in start.random]
        if not inner:
            return Choice(False, "no inner link has weights")
        if start.deepest < 2:
            return Choice(False, "no agent takes more than one latent step")
        if not random:
            return Choice(False, "the inner links work from their start, or were trained before")
        texts, agents = start.texts(), [agent.name for agent in start.plan.graph.agents]
        covered = set(texts) >= set(agents) or start.answer_field in start.fields
        begun = f"{listed(random)} start at random, and {start.deepest} latent steps read them"
        if texts and covered:
            begun += "; texts: " + ", ".join(f"{name} from {own!r}" for name, own in texts.items())
            return Choice(True, begun, {**KEPT, "targets": texts}, KEPT_STEPS, KEPT_EPOCHS)
        begun += "; the text twin says what they are to convey"
        return Choice(True, begun, KEPT, KEPT_STEPS, KEPT_EPOCHS)
