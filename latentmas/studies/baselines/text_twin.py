"""The team's graph, talking in text."""

from __future__ import annotations

from pydantic import Field

from latentmas.plan import Plan
from latentmas.spec import Graph
from latentmas.studies.baselines import Baseline, BaselineOptions, baselines

__all__ = ["TextTwin", "TextTwinOptions"]


class TextTwinOptions(BaselineOptions):
    """Options of the text twin."""

    max_new_tokens: int | None = Field(default=None, ge=1)
    """Maximum number of tokens per turn of agents without a limit of their own. None: 256."""


@baselines.register("text_twin")
class TextTwin(Baseline):
    """The same agents with the same prompts, with a text edge in place of every latent edge."""

    summary = "the same agents and prompts, with text edges"
    Options = TextTwinOptions

    def graph(self, plan: Plan) -> Graph:
        """The text twin's graph."""
        twin = Graph.from_spec(plan.graph)
        return twin.as_text(max_new_tokens=self.options.max_new_tokens)
