"""A looped language model, such as Ouro, in place of the team."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from latentmas.plan import Plan
from latentmas.spec import Backbone, Graph
from latentmas.studies.baselines import Baseline, baselines
from latentmas.studies.baselines._prompt import single_agent
from latentmas.studies.baselines.single import SingleOptions

__all__ = ["LoopLM", "LoopLMOptions"]

KEY = "looped"


class LoopLMOptions(SingleOptions):
    """Options of a looped language model."""

    source: str = "ByteDance/Ouro-1.4B"
    """Hub id or folder of the model."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    dtype: str = "auto"
    """Data type of the weights."""
    trust_remote_code: bool = False
    """Run Python code from the model's repository, where its class is not in transformers. Leave it
    off unless you have read that code."""
    loops: int | None = Field(default=None, ge=1, le=1024)
    """Number of passes over the layers. None: as the model's configuration says."""
    loops_field: str = "total_ut_steps"
    """Field of the model's configuration with that number; the default is Ouro's."""


@baselines.register("looplm")
class LoopLM(Baseline):
    """One agent on a model that passes several times over the same layers (arXiv 2510.25741).

    It is another model than the team's, with weights of its own: compare sizes before scores.
    """

    summary = "one agent on a looped language model, such as Ouro"
    Options = LoopLMOptions

    def graph(self, plan: Plan) -> Graph:
        """The single agent on the looped model."""
        asked = self.options
        alone = single_agent(
            plan, prompt=asked.prompt, system=asked.system, max_new_tokens=asked.max_new_tokens
        ).spec()
        load: dict[str, Any] = {} if asked.loops is None else {asked.loops_field: asked.loops}
        model = Backbone(
            asked.source,
            revision=asked.revision,
            dtype=asked.dtype,
            trust_remote_code=asked.trust_remote_code,
            load=load,
        )
        (agent,) = alone.agents
        changed = agent.model_copy(update={"backbone": KEY})
        name = f"{plan.graph.name}-looplm"
        return Graph.from_spec(
            alone.replace(name=name, agents=[changed], backbones={KEY: model.model_dump()})
        )
