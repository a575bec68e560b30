"""Expert → learner, in a loop."""

from __future__ import annotations

from collections.abc import Iterable

from latentmas.errors import spelled
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
)

__all__ = ["distillation"]

PAPER = {"expert": "Qwen/Qwen3.5-9B", "learner": "Qwen/Qwen3.5-4B"}
"""The paper's models."""


@register("distillation")
@spelled
def distillation(
    *,
    expert: Backbone | None = None,
    learner: Backbone | None = None,
    rounds: int = 3,
    latent_steps: int = 32,
    name: str = "distillation",
    link: str | None = None,
    inner: str | None = None,
    inputs: str | Iterable[str] = ("question",),
    task: str = "math",
    prompts: Prompts | None = None,
    max_new_tokens: int | None = None,
) -> Graph:
    r"""A loop of two agents: a strong expert guides a fast learner, which answers.

    The learner's latent states of each round reach the expert in the next. Only the learner
    generates text, once, in the last round.

    Reference:
        RecursiveMAS (arXiv 2604.25917), the distillation style.

    Inputs:
        expert: backbone of the stronger agent; None uses the paper's.
        learner: backbone of the agent that reads the expert's message in its slot `plan` and
            answers; None uses the paper's.
        rounds: number of rounds R; with 1 there is no feedback edge.
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
        UnknownNameError: the task is unknown, or `prompts` names an unknown agent.

    Relations:
        [`sequential`][latentmas.templates.sequential] has a critic in between;
        [`deliberation`][latentmas.templates.deliberation] has the same topology with different
        roles. For R rounds: 2R − 1 rollouts, 2R − 1 transfers, one decode.

    Example:
        >>> tiny = Backbone("./tiny")
        >>> distillation(expert=tiny, learner=tiny, rounds=2).spec().rounds
        2
    """
    kind = default_link(expert, learner)
    link, inner = link or kind, inner or kind
    inputs = [inputs] if isinstance(inputs, str) else list(inputs)
    fields = prompt_fields(_defaults(task_words(task, inputs), rounds), prompts, rounds=rounds)
    paper = backbones_of(PAPER)
    graph = Graph(name, inputs=inputs, rounds=rounds, latent_steps=latent_steps)
    graph.add_agent("expert", expert or paper["expert"], inner=inner, **fields["expert"])
    graph.add_agent(
        "learner",
        learner or paper["learner"],
        inner=inner,
        max_new_tokens=max_new_tokens,
        **fields["learner"],
    )
    graph.connect("expert", "learner.plan", link=link)
    if rounds > 1:
        graph.feedback("learner", "expert.feedback", link=link)
    return graph.output("learner")


def _defaults(task: Task, rounds: int) -> dict[str, str]:
    again = feedback("What the learner made of your last advice: {{ feedback }}\n", rounds=rounds)
    return {
        "expert": f"You are the expert who guides a learner.\n{again}{task.shown}\n"
        "Sketch the few steps that lead to the result. Leave the result itself to the learner.",
        "learner": "You are the learner.\nAdvice of the expert: {{ plan }}\n"
        f"{task.shown}\nFollow the advice and {task.ending}",
    }
