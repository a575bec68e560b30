"""Planner → critic → solver, in a loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from latentmas.errors import spelled
from latentmas.spec import DEFAULT_LINK, Backbone, Graph
from latentmas.templates import register
from latentmas.templates._prompts import (
    PAPER_LINK,
    Prompts,
    Task,
    backbones_of,
    feedback,
    prompt_fields,
    task_words,
)

__all__ = ["sequential", "sequential_light", "sequential_scaled"]

LIGHT = {
    "planner": "Qwen/Qwen3-1.7B",
    "critic": "meta-llama/Llama-3.2-1B-Instruct",
    "solver": "Qwen/Qwen2.5-Math-1.5B-Instruct",
}
"""The paper's small models."""
SCALED = {
    "planner": "google/gemma-3-4b-it",
    "critic": "meta-llama/Llama-3.2-3B-Instruct",
    "solver": "Qwen/Qwen3.5-4B",
}
"""The paper's larger models."""


@register("sequential")
@spelled
def sequential(
    *,
    planner: Backbone,
    critic: Backbone,
    solver: Backbone,
    rounds: int = 3,
    latent_steps: int = 32,
    name: str = "sequential",
    link: str | None = None,
    inner: str | None = None,
    inputs: str | Iterable[str] = ("question",),
    task: str = "math",
    prompts: Prompts | None = None,
    max_new_tokens: int | None = None,
) -> Graph:
    r"""A loop of three agents: a planner, a critic of the plan, and a solver that answers.

    The solver's latent states of each round reach the planner in the next. Only the solver
    generates text, once, in the last round.

    Reference:
        RecursiveMAS (arXiv 2604.25917), the sequential style.

    Inputs:
        planner: backbone of the agent that drafts a plan.
        critic: backbone of the agent that reads the plan in its slot `plan` and improves it.
        solver: backbone of the agent that follows the plan in its slot `plan` and answers.
        rounds: number of rounds R; with 1 there is no feedback edge.
        latent_steps: number of latent steps K of each agent.
        name: name of the graph.
        link: kind of every outer link, or `"text"`. None uses `soft_token`.
        inner: kind of every inner link; None uses `soft_token`.
        inputs: sample fields shown to each agent.
        task: kind of answer to ask for: `"math"`, `"code"`, `"choice"` or `"search"`.
        prompts: agent → your prompt or `{"system": …, "prompt": …}`; or the file of a prompt pack.
        max_new_tokens: maximum number of tokens in the answer.

    Raises:
        UnknownNameError: the task is unknown, or `prompts` names an unknown agent.

    Relations:
        [`distillation`][latentmas.templates.distillation] is the same loop with two agents;
        [`mixture`][latentmas.templates.mixture] runs its experts in parallel. For R
        rounds: 3R − 1 rollouts, 3R − 1 transfers, one decode.

    Example:
        >>> tiny = Backbone("./tiny")
        >>> sequential(planner=tiny, critic=tiny, solver=tiny).spec().output
        ('solver',)
    """
    link, inner = link or DEFAULT_LINK, inner or DEFAULT_LINK
    inputs = [inputs] if isinstance(inputs, str) else list(inputs)
    fields = prompt_fields(_defaults(task_words(task, inputs), rounds), prompts, rounds=rounds)
    graph = Graph(name, inputs=inputs, rounds=rounds, latent_steps=latent_steps)
    graph.add_agent("planner", planner, inner=inner, **fields["planner"])
    graph.add_agent("critic", critic, inner=inner, **fields["critic"])
    graph.add_agent(
        "solver", solver, inner=inner, max_new_tokens=max_new_tokens, **fields["solver"]
    )
    graph.connect("planner", "critic.plan", link=link)
    graph.connect("critic", "solver.plan", link=link)
    if rounds > 1:
        graph.feedback("solver", "planner.feedback", link=link)
    return graph.output("solver")


@register("sequential_light")
def sequential_light(**changes: Any) -> Graph:
    """The paper's sequential team, with models of 1 to 2 billion weights.

    Reference:
        RecursiveMAS (arXiv 2604.25917), Sequential-Light: Qwen3-1.7B, Llama-3.2-1B-Instruct,
        Qwen2.5-Math-1.5B-Instruct.

    Inputs:
        changes: arguments of `sequential`, which replace the paper's models and settings. By
            default, links are of the paper's kind, `recursive`.

    Raises:
        UnknownNameError: the task is unknown, or `prompts` names an unknown agent.

    Relations:
        [`sequential`][latentmas.templates.sequential] is the same team with your own backbones.

    Example:
        >>> sequential_light(rounds=2).spec().rounds
        2
    """
    return _preset(LIGHT, "sequential-light", changes)


@register("sequential_scaled")
def sequential_scaled(**changes: Any) -> Graph:
    """The paper's sequential team, with models of 3 to 4 billion weights.

    Reference:
        RecursiveMAS (arXiv 2604.25917), Sequential-Scaled: Gemma3-4B-it, Llama-3.2-3B-Instruct,
        Qwen3.5-4B.

    Inputs:
        changes: arguments of `sequential`, which replace the paper's models and settings. By
            default, links are of the paper's kind, `recursive`.

    Raises:
        UnknownNameError: the task is unknown, or `prompts` names an unknown agent.

    Relations:
        [`sequential`][latentmas.templates.sequential] is the same team with your own backbones.

    Example:
        >>> sequential_scaled(rounds=2).spec().rounds
        2
    """
    return _preset(SCALED, "sequential-scaled", changes)


def _preset(models: Mapping[str, str], name: str, changes: Mapping[str, Any]) -> Graph:
    """The paper's team: its models and its link kind, unless changed."""
    own = {"name": name, "link": PAPER_LINK, "inner": PAPER_LINK}
    return sequential(**{**backbones_of(models), **own, **changes})


def _defaults(task: Task, rounds: int) -> dict[str, str]:
    again = (
        "Where the solver got to with your last plan: {{ feedback }}\n"
        "Keep what worked, mend what did not, and lay out a better plan."
    )
    plan = f"Lay out, step by step, how you would reach the result. {task.not_yet}"
    return {
        "planner": f"You are the planner.\n{task.shown}\n"
        + feedback(again, rounds=rounds, otherwise=plan),
        "critic": f"You are the critic.\n{task.shown}\nDraft of a plan: {{{{ plan }}}}\n"
        "Look for gaps, slips and needless steps in the draft, and set the plan right.",
        "solver": f"You are the solver.\nPlan to follow: {{{{ plan }}}}\n{task.shown}\n"
        f"Work through the plan with care and {task.ending}",
    }
