"""The output agent's model alone, as it is."""

from __future__ import annotations

from pydantic import Field

from latentmas.plan import Plan
from latentmas.spec import Graph
from latentmas.studies.baselines import Baseline, BaselineOptions, baselines
from latentmas.studies.baselines._prompt import single_agent

__all__ = ["Single", "SingleOptions"]


class SingleOptions(BaselineOptions):
    """Options of baselines of one agent."""

    prompt: str | None = None
    """Prompt, a Jinja2 template over the inputs of the team's graph. None: the output agent's
    without its messages, and with every input."""
    system: str | None = None
    """System turn. None: the output agent's; an empty text leaves it out."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Maximum number of tokens in the answer. None: the output agent's limit."""


@baselines.register("single")
class Single(Baseline):
    """The output agent's model alone: one agent that is shown every input of the team."""

    summary = "the output agent's model alone, shown every input of the team"
    Options = SingleOptions

    def graph(self, plan: Plan) -> Graph:
        """One agent without edges."""
        asked = self.options
        return single_agent(
            plan, prompt=asked.prompt, system=asked.system, max_new_tokens=asked.max_new_tokens
        )
