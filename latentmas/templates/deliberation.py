"""Reflector → tool caller in a loop; the tool caller can call tools while it answers."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import getdoc

from latentmas.errors import spelled
from latentmas.spec import Backbone, Graph
from latentmas.templates import register
from latentmas.templates._prompts import (
    TEAM_SYSTEM,
    Prompts,
    Task,
    backbones_of,
    default_link,
    feedback,
    prompt_fields,
    task_words,
)
from latentmas.tools import Tool
from latentmas.tools import tools as known_tools

__all__ = ["deliberation"]

PAPER = {"reflector": "Qwen/Qwen3.5-4B", "tool_caller": "Qwen/Qwen3.5-4B"}
"""The paper's models: the same for both agents, so it is loaded once."""
TOOLS = ("python", "search")
"""The paper's tools."""


@register("deliberation")
@spelled
def deliberation(
    *,
    reflector: Backbone | None = None,
    tool_caller: Backbone | None = None,
    tools: Iterable[str | Tool] = TOOLS,
    rounds: int = 3,
    latent_steps: int = 32,
    name: str = "deliberation",
    link: str | None = None,
    inner: str | None = None,
    inputs: str | Iterable[str] = ("question",),
    task: str = "math",
    prompts: Prompts | None = None,
    max_new_tokens: int | None = None,
) -> Graph:
    r"""A loop of two agents: one reflects, the other acts on the reflection and answers.

    The tool caller's latent states of each round reach the reflector in the next. Only the tool
    caller generates text, once, in the last round.

    Reference:
        RecursiveMAS (arXiv 2604.25917), the deliberation style.

    Inputs:
        reflector: backbone of the agent that thinks about the task; None uses the paper's.
        tool_caller: backbone of the agent `toolcaller`, which reads the slot `reflection` and
            answers; None uses the paper's.
        tools: tools of the tool caller: names of registered tools, or your own functions.
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
        [`distillation`][latentmas.templates.distillation] has the same topology with different
        roles. For R rounds: 2R − 1 rollouts, 2R − 1 transfers, one decode.

    Example:
        >>> tiny = Backbone("./tiny")
        >>> deliberation(reflector=tiny, tool_caller=tiny).spec().edges[1].id
        'toolcaller->reflector.feedback'
    """
    kind = default_link(reflector, tool_caller)
    link, inner = link or kind, inner or kind
    inputs = [inputs] if isinstance(inputs, str) else list(inputs)
    tools, paper = list(tools), backbones_of(PAPER)
    defaults = _defaults(task_words(task, inputs), rounds)
    fields = prompt_fields(defaults, prompts, rounds=rounds, system=_system(tools))
    graph = Graph(name, inputs=inputs, rounds=rounds, latent_steps=latent_steps)
    graph.add_agent(
        "reflector", reflector or paper["reflector"], inner=inner, **fields["reflector"]
    )
    graph.add_agent(
        "toolcaller",
        tool_caller or paper["tool_caller"],
        tools=tools,
        inner=inner,
        max_new_tokens=max_new_tokens,
        **fields["toolcaller"],
    )
    graph.connect("reflector", "toolcaller.reflection", link=link)
    if rounds > 1:
        graph.feedback("toolcaller", "reflector.feedback", link=link)
    return graph.output("toolcaller")


def _defaults(task: Task, rounds: int) -> dict[str, str]:
    again = feedback("How far the tool caller got: {{ feedback }}\n", rounds=rounds)
    return {
        "reflector": f"You are the reflector.\n{again}{task.shown}\n"
        "Think over what is asked, what is known, and what ought to be checked.",
        "toolcaller": "You are the tool caller, who acts on a colleague's reflection.\n"
        f"Reflection: {{{{ reflection }}}}\n{task.shown}\n"
        f"Check what needs checking and {task.ending}",
    }


def _system(tools: Iterable[str | Tool]) -> str:
    """The system turn, with each tool's tag and the first line of its docstring."""
    found = {t if isinstance(t, str) else t.__name__: t for t in tools}
    if not found:
        return TEAM_SYSTEM
    lines = [
        TEAM_SYSTEM,
        "Whoever answers may call tools; each call is answered in <result>…</result>:",
    ]
    for name, tool in found.items():
        about = getdoc(known_tools.get(name) if isinstance(tool, str) else tool) or ""
        lines.append(f"<{name}>…</{name}>: {about.splitlines()[0] if about else name}")
    return "{% raw %}" + "\n".join(lines) + "{% endraw %}"
