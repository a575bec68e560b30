"""The outer loop as an entry of the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.training.loops import loops
from latentmas.training.loops._base import Choice, Loop, Start, listed

if TYPE_CHECKING:
    from latentmas.training.config import OuterConfig
    from latentmas.training.outer import OuterTrainer

__all__ = ["OuterLoop"]


@loops.register("outer")
class OuterLoop(Loop):
    """Links and adapters that the answer's loss reaches, through all rounds."""

    summary = "Train links from the final answer, through all rounds."
    order, steps, epochs = 40, 150, 5
    flags = ("rounds", "recipe", "train_links", "train_adapters", "dry_run")
    trains_adapters = True

    @staticmethod
    def parts() -> tuple[type[OuterTrainer], type[OuterConfig]]:
        """`OuterTrainer` and `OuterConfig`."""
        from latentmas.training.config import OuterConfig
        from latentmas.training.outer import OuterTrainer

        return OuterTrainer, OuterConfig

    @staticmethod
    def choose(start: Start) -> Choice:
        """Right answers are of use to every team with outer links or adapters that learn."""
        outer = start.links("outer")
        reached = [link.id for link in outer if link.differentiable]
        if not outer and not start.adapters:
            return Choice(False, "no outer link has weights")
        if not reached and not start.adapters:
            return Choice(False, "no differentiable path leads from an outer link to the answer")
        if start.answer_field not in start.fields:
            return Choice(False, f"the rows have no field {start.answer_field!r}")
        settings = {} if len(reached) == len(outer) else {"train_links": reached}
        begun = "after the loops before it" if start.random else "its links work from their start"
        has = f"the rows have {start.answer_field!r}"
        if start.adapters:
            return Choice(True, f"{has}, from which adapters learn", settings)
        return Choice(True, f"{has}; {listed(reached)}: {begun}", settings)
