"""The edge loop as an entry of the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.training.loops import loops
from latentmas.training.loops._base import Choice, Loop, Start, listed

if TYPE_CHECKING:
    from latentmas.training.config import EdgeConfig
    from latentmas.training.edges import EdgeTrainer

__all__ = ["EdgeLoop"]


@loops.register("edge")
class EdgeLoop(Loop):
    """Outer links, each by itself, from texts of the agents or of the text twin."""

    summary = (
        "Train edges, each by itself: a message becomes what its sender would have said in words."
    )
    order, steps, epochs = 20, 200, 10
    flags = ("targets", "train_links")

    @staticmethod
    def parts() -> tuple[type[EdgeTrainer], type[EdgeConfig]]:
        """`EdgeTrainer` and `EdgeConfig`."""
        from latentmas.training.config import EdgeConfig
        from latentmas.training.edges import EdgeTrainer

        return EdgeTrainer, EdgeConfig

    @staticmethod
    def choose(start: Start) -> Choice:
        """Outer links at a random start need it; without texts, the text twin provides them."""
        outer = [link.id for link in start.links("outer")]
        random = [id for id in outer if id in start.random]
        if not outer:
            return Choice(False, "no outer link has weights")
        if not random:
            return Choice(False, "the outer links work from their start, or were trained before")
        if start.rolls_from_random:
            return Choice(False, "the rollout loop begins with links at a random start")
        texts, agents = start.texts(), [agent.name for agent in start.plan.graph.agents]
        covered = set(texts) >= set(agents) or start.answer_field in start.fields
        begun = f"{listed(random)} start at random"
        if texts and covered:
            said = ", ".join(f"{name} from {field!r}" for name, field in texts.items())
            return Choice(True, f"{begun}; texts: {said}", {"targets": texts})
        return Choice(True, f"{begun}; the text twin says what the messages are to become")
