"""Parallel experts and a summarizer that combines their results, in a loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from latentmas.errors import GraphError, Problem, spelled
from latentmas.spec import Backbone, Graph
from latentmas.templates import register
from latentmas.templates._prompts import (
    Prompts,
    Task,
    backbones_of,
    default_link,
    feedback,
    prompt_fields,
    task_words,
    title,
)

__all__ = ["mixture"]

EXPERTS = {
    "math": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "code": "Qwen/Qwen2.5-Coder-3B-Instruct",
    "science": "BioMistral/BioMistral-7B",
}
"""The paper's experts, in the order of their slots."""
SUMMARIZER = {"summarizer": "Qwen/Qwen3.5-2B"}
"""The paper's summarizer."""


@register("mixture")
@spelled
def mixture(
    *,
    experts: Mapping[str, Backbone] | None = None,
    summarizer: Backbone | None = None,
    rounds: int = 3,
    latent_steps: int = 32,
    name: str = "mixture",
    link: str | None = None,
    inner: str | None = None,
    inputs: str | Iterable[str] = ("question",),
    task: str = "math",
    prompts: Prompts | None = None,
    max_new_tokens: int | None = None,
) -> Graph:
    r"""A loop of parallel experts and a summarizer that combines their results and answers.

    The summarizer's latent states of each round reach every expert in the next. Only the summarizer
    generates text, once, in the last round.

    Reference:
        RecursiveMAS (arXiv 2604.25917), the mixture style, which has three experts.

    Inputs:
        experts: name → backbone of one or more experts, in the order of the slots; None uses the
            paper's three.
        summarizer: backbone of the agent with one slot per expert, named after the expert; None
            uses the paper's.
        rounds: number of rounds R; with 1 there are no feedback edges.
        latent_steps: number of latent steps K of each agent.
        name: name of the graph.
        link: kind of every outer link, or `"text"`. None uses `soft_token`, or the paper's
            `recursive` if all models are the paper's.
        inner: kind of every inner link; None has the same default as for `link`.
        inputs: sample fields shown to each agent.
        task: kind of answer to ask for: `"math"`, `"code"`, `"choice"` or `"search"`.
        prompts: agent → your prompt or `{"system": …, "prompt": …}`; or the file of a prompt pack.
        max_new_tokens: maximum number of tokens in the answer.

    Raises:
        GraphError: `experts` is empty.
        TypeError: `experts` is not a mapping of backbones.
        UnknownNameError: the task is unknown, or `prompts` names an unknown agent.

    Relations:
        [`sequential`][latentmas.templates.sequential] runs its agents one after another.
        For R rounds and n experts: nR + R − 1 rollouts, nR + n(R − 1) transfers, one decode.
        Experts with equal backbones run as one batch.

    Example:
        >>> tiny = Backbone("./tiny")
        >>> len(mixture(experts={"algebra": tiny, "geometry": tiny}, summarizer=tiny).spec().edges)
        4
    """
    kind = default_link(experts, summarizer)
    link, inner = link or kind, inner or kind
    experts = backbones_of(EXPERTS) if experts is None else experts
    summarizer = summarizer or backbones_of(SUMMARIZER)["summarizer"]
    if not isinstance(experts, Mapping):
        raise TypeError(
            f"experts is {type(experts).__name__}; give a mapping, name → backbone, such as "
            'experts={"math": backbone}'
        )
    if not experts:
        hint = 'name at least one, such as experts={"math": backbone}'
        raise GraphError([Problem("LM116", "template mixture", "`experts` is empty", hint)], name)
    inputs = [inputs] if isinstance(inputs, str) else list(inputs)
    fields = prompt_fields(
        _defaults(list(experts), task_words(task, inputs), rounds), prompts, rounds=rounds
    )
    graph = Graph(name, inputs=inputs, rounds=rounds, latent_steps=latent_steps)
    for expert, backbone in experts.items():
        graph.add_agent(expert, backbone, inner=inner, **fields[expert])
    graph.add_agent(
        "summarizer", summarizer, inner=inner, max_new_tokens=max_new_tokens, **fields["summarizer"]
    )
    for expert in experts:
        graph.connect(expert, f"summarizer.{expert}", link=link)
        if rounds > 1:
            graph.feedback("summarizer", f"{expert}.feedback", link=link)
    return graph.output("summarizer")


def _defaults(experts: list[str], task: Task, rounds: int) -> dict[str, str]:
    known = "What the team had found after the last round: {{ feedback }}\n"
    again = feedback(known, rounds=rounds)
    prompts = {
        expert: f"You are the team's expert for {expert.replace('_', ' ')}.\n{again}{task.shown}\n"
        "Think about it from the point of view of your field."
        for expert in experts
    }
    found = "\n".join(f"{title(expert)} expert: {{{{ {expert} }}}}" for expert in experts)
    prompts["summarizer"] = (
        f"You are the summarizer. These are the thoughts of the experts.\n{found}\n{task.shown}\n"
        f"Weigh the thoughts against each other and {task.ending}"
    )
    return prompts
