"""Reflector → tool caller, looped."""

from __future__ import annotations

from collections.abc import Iterable

from latentmas.spec import Backbone, Graph
from latentmas.templates import register
from latentmas.templates._prompts import Prompts, feedback, prompt_fields, task

__all__ = ["deliberation"]


@register("deliberation")
def deliberation(
    *,
    reflector: Backbone,
    tool_caller: Backbone,
    rounds: int = 3,
    latent_steps: int = 32,
    name: str = "deliberation",
    link: str = "recursive",
    inner: str = "recursive",
    inputs: str | Iterable[str] = ("question",),
    prompts: Prompts | None = None,
    max_new_tokens: int | None = None,
) -> Graph:
    r"""One agent reflects, the other acts on the reflection and answers; then again.

    The tool caller's thoughts of one round reach the reflector in the next. Only the tool caller
    writes text, once, in the last round.

    Reference:
        RecursiveMAS (arXiv 2604.25917), the deliberation style.

    Inputs:
        reflector: backbone of the agent that thinks the task over.
        tool_caller: backbone of the agent that reads the slot `reflection` and answers.
        rounds: R; with 1 there is no feedback edge.
        latent_steps: K of each agent.
        name: of the graph.
        link: kind of every outer link, or `"text"`.
        inner: kind of every inner link.
        inputs: sample fields shown to each agent.
        prompts: agent → own prompt, or `{"system": …, "prompt": …}`.
        max_new_tokens: most tokens of the answer.

    Raises:
        UnknownNameError: `prompts` names an agent that does not exist.

    Relations:
        [`distillation`][latentmas.templates.distillation] has the same shape and other roles. For
        R rounds: 2R − 1 rollouts, 2R − 1 transfers, one decode.

    Example:
        >>> tiny = Backbone("./tiny")
        >>> deliberation(reflector=tiny, tool_caller=tiny).spec().edges[1].id
        'tool_caller->reflector.feedback'
    """
    inputs = [inputs] if isinstance(inputs, str) else list(inputs)
    fields = prompt_fields(_defaults(task(inputs), rounds), prompts)
    graph = Graph(name, inputs=inputs, rounds=rounds, latent_steps=latent_steps)
    graph.add_agent("reflector", reflector, inner=inner, **fields["reflector"])
    graph.add_agent(
        "tool_caller",
        tool_caller,
        inner=inner,
        max_new_tokens=max_new_tokens,
        **fields["tool_caller"],
    )
    graph.connect("reflector", "tool_caller.reflection", link=link)
    if rounds > 1:
        graph.feedback("tool_caller", "reflector.feedback", link=link)
    return graph.output("tool_caller")


def _defaults(question: str, rounds: int) -> dict[str, str]:
    again = feedback("How far the tool caller got: {{ feedback }}\n", rounds=rounds)
    return {
        "reflector": f"You are the reflector.\n{again}{question}\n"
        "Think over what is asked, what is known, and what ought to be checked.",
        "tool_caller": "You are the tool caller, who acts on a colleague's reflection.\n"
        f"Reflection: {{{{ reflection }}}}\n{question}\n"
        "Check what needs checking and end with the result in \\boxed{}.",
    }
