"""Mixture-of-Agents: layers of proposers and an aggregator, in text."""

from __future__ import annotations

from itertools import cycle, islice

from pydantic import Field

from latentmas import templates
from latentmas.plan import Plan
from latentmas.spec import Graph
from latentmas.studies.baselines import Baseline, baselines
from latentmas.studies.baselines._prompt import single_agent
from latentmas.studies.baselines.single import SingleOptions

__all__ = ["MixtureOfAgents", "MixtureOfAgentsOptions"]


class MixtureOfAgentsOptions(SingleOptions):
    """Options of Mixture-of-Agents."""

    layers: int = Field(default=2, ge=1, le=64)
    """Number of layers of proposers, before the aggregator."""
    proposers: int | None = Field(default=None, ge=1, le=64)
    """Number of proposers per layer. They run on the backbones of the team's agents in turn. None:
    one for each agent."""


@baselines.register("mixture_of_agents")
class MixtureOfAgents(Baseline):
    """Proposers on the team's backbones, and an aggregator on the output agent's.

    Every one is asked what the single agent is asked.
    """

    summary = "layers of proposers on the team's models, and an aggregator, in text"
    Options = MixtureOfAgentsOptions

    def graph(self, plan: Plan) -> Graph:
        """The template's graph, with the team's inputs and text sources."""
        asked, spec = self.options, plan.graph
        alone = single_agent(
            plan, prompt=asked.prompt, system=asked.system, max_new_tokens=asked.max_new_tokens
        ).spec()
        (agent,) = alone.agents
        count = asked.proposers or len(spec.agents)
        models = islice(cycle(spec.backbones[one.backbone] for one in spec.agents), count)
        names = [f"proposer_{number}" for number in range(1, count + 1)]
        prompt = f"{agent.system}\n{agent.prompt}" if agent.system else agent.prompt
        made = templates.mixture_of_agents(
            proposers=dict(zip(names, models, strict=True)),
            aggregator=spec.backbones[agent.backbone],
            rounds=asked.layers,
            name=f"{spec.name}-mixture-of-agents",
            inputs=alone.inputs,
            prompts=dict.fromkeys([*names, "aggregator"], prompt),
            max_new_tokens=agent.max_new_tokens,
        ).spec()
        agents = [
            one.model_copy(update={"chat_options": agent.chat_options}) for one in made.agents
        ]
        outside = [
            edge.model_copy(update={"target": one.name}) for edge in alone.edges for one in agents
        ]
        return Graph.from_spec(
            made.replace(
                agents=agents, edges=[*made.edges, *outside], text_sources=alone.text_sources
            )
        )
