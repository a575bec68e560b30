"""Layers of proposers that read each other's answers, and an aggregator: the text baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from latentmas.errors import GraphError, Problem, spelled
from latentmas.spec import DEFAULT_LINK, TEXT, Backbone, Graph
from latentmas.templates import register
from latentmas.templates._prompts import Prompts, prompt_fields, task_words

__all__ = ["mixture_of_agents"]

SYNTHESISE = (
    "Several language models have answered the request of the user. Combine their answers into a "
    "single answer of high quality. Judge what they say critically: some of it may be biased or "
    "wrong. Do not merely repeat the answers, but correct them, and give an accurate, complete and "
    "well-organised reply.\n\nAnswers of the models:"
)
"""What the published aggregate-and-synthesise prompt asks for, in other words."""


@register("mixture_of_agents")
@spelled
def mixture_of_agents(
    *,
    proposers: Mapping[str, Backbone],
    aggregator: Backbone,
    rounds: int = 3,
    latent_steps: int = 32,
    name: str = "mixture_of_agents",
    link: str | None = None,
    inner: str | None = None,
    inputs: str | Iterable[str] = ("question",),
    task: str = "math",
    prompts: Prompts | None = None,
    max_new_tokens: int | None = None,
) -> Graph:
    r"""Layers of proposers, each of which reads the answers of the layer before, and an aggregator.

    A round is a layer: every proposer answers, and reads the answers of all proposers in the next.
    The aggregator reads those of the last layer and answers. All of them talk in text.

    Reference:
        Mixture-of-Agents (arXiv 2406.04692). The published system has six proposers in two layers,
        and counts the aggregator as a third.

    Inputs:
        proposers: name → backbone of one or more proposers, in the order of their answers. Equal
            backbones give different answers only if they sample (`do_sample=True`).
        aggregator: backbone of the agent that answers.
        rounds: number of layers of proposers.
        latent_steps: number of latent steps K of each agent, for a `link` that is not text.
        name: name of the graph.
        link: kind of every edge; None uses `"text"`, as published.
        inner: kind of every inner link, for a `link` that is not text; None uses `soft_token`.
        inputs: sample fields shown to each agent.
        task: kind of answer to ask for: `"math"`, `"code"`, `"choice"` or `"search"`.
        prompts: agent → your prompt or `{"system": …, "prompt": …}`; or the file of a prompt pack.
            Answers of the layer before stand in the system turn, in slots named after the
            proposers; for proposers they are undefined in the first layer.
        max_new_tokens: maximum number of tokens in each answer, those of proposers among them.

    Raises:
        GraphError: `proposers` is empty, or one has the name of the aggregator.
        TypeError: `proposers` is not a mapping of backbones.
        UnknownNameError: the task is unknown, or `prompts` names an unknown agent.

    Relations:
        [`mixture`][latentmas.templates.mixture] has experts who only hear the summarizer, and
        latent edges. For R layers and n proposers: nR + 1 texts are written.

    Example:
        >>> tiny = Backbone("./tiny")
        >>> len(mixture_of_agents(proposers={"a": tiny, "b": tiny}, aggregator=tiny).spec().edges)
        6
    """
    _check(proposers, name)
    link, inner = link or TEXT, inner or DEFAULT_LINK
    inputs = [inputs] if isinstance(inputs, str) else list(inputs)
    words = task_words(task, inputs)
    ask = f"{words.shown}\n{words.ending[:1].upper()}{words.ending[1:]}"
    names = [*proposers, "aggregator"]
    heard = {own: _heard(list(proposers), guarded=own in proposers, rounds=rounds) for own in names}
    fields = prompt_fields(dict.fromkeys(names, ask), prompts, rounds=rounds, system=heard)
    graph = Graph(name, inputs=inputs, rounds=rounds, latent_steps=latent_steps)
    for own in names:
        backbone = proposers.get(own, aggregator)
        graph.add_agent(own, backbone, inner=inner, max_new_tokens=max_new_tokens, **fields[own])
    for source in proposers:
        graph.connect(source, f"aggregator.{source}", link=link)
        for target in proposers if rounds > 1 else ():
            graph.feedback(source, f"{target}.{source}", link=link)
    return graph.output("aggregator")


def _check(proposers: object, name: str) -> None:
    if not isinstance(proposers, Mapping):
        raise TypeError(
            f"proposers is {type(proposers).__name__}; give a mapping, name → backbone, such as "
            'proposers={"first": backbone}'
        )
    where = "template mixture_of_agents"
    if not proposers:
        hint = 'name at least one, such as proposers={"first": backbone}'
        raise GraphError([Problem("LM116", where, "`proposers` is empty", hint)], name)
    if "aggregator" in proposers:
        message = "a proposer has the name 'aggregator', which is that of the last agent"
        raise GraphError([Problem("LM102", where, message, "give it another name")], name)


def _heard(proposers: list[str], *, guarded: bool, rounds: int) -> str | None:
    """System turn of an agent: the answers of the layer before."""
    if guarded and rounds <= 1:
        return None
    answers = "\n".join(f"{n}. {{{{ {name} }}}}" for n, name in enumerate(proposers, start=1))
    told = f"{SYNTHESISE}\n{answers}"
    return f"{{% if {proposers[0]} %}}{told}{{% endif %}}" if guarded else told
