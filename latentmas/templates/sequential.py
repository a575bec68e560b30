"""Planner → critic → solver, looped."""

from __future__ import annotations

from collections.abc import Iterable

from latentmas.spec import Backbone, Graph
from latentmas.templates import register
from latentmas.templates._prompts import Prompts, feedback, prompt_fields, task

__all__ = ["sequential"]


@register("sequential")
def sequential(
    *,
    planner: Backbone,
    critic: Backbone,
    solver: Backbone,
    rounds: int = 3,
    latent_steps: int = 32,
    name: str = "sequential",
    link: str = "recursive",
    inner: str = "recursive",
    inputs: str | Iterable[str] = ("question",),
    prompts: Prompts | None = None,
    max_new_tokens: int | None = None,
) -> Graph:
    r"""A chain of three: one plans, one criticises the plan, one solves; then again.

    The solver's thoughts of one round reach the planner in the next. Only the solver writes text,
    once, in the last round.

    Reference:
        RecursiveMAS (arXiv 2604.25917), the sequential style.

    Inputs:
        planner: backbone of the agent that drafts a plan.
        critic: backbone of the agent that reads the plan in its slot `plan` and sharpens it.
        solver: backbone of the agent that follows the plan in its slot `plan` and answers.
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
        [`distillation`][latentmas.templates.distillation] is the same loop with two agents,
        [`mixture`][latentmas.templates.mixture] works in parallel. For R rounds: 3R − 1 rollouts,
        3R − 1 transfers, one decode.

    Example:
        >>> tiny = Backbone("./tiny")
        >>> sequential(planner=tiny, critic=tiny, solver=tiny).spec().output
        ('solver',)
    """
    inputs = [inputs] if isinstance(inputs, str) else list(inputs)
    fields = prompt_fields(_defaults(task(inputs), rounds), prompts)
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


def _defaults(question: str, rounds: int) -> dict[str, str]:
    again = (
        "Where the solver got to with your last plan: {{ feedback }}\n"
        "Keep what worked, mend what did not, and lay out a better plan."
    )
    plan = "Lay out, step by step, how you would reach the result. Do not work it out yet."
    return {
        "planner": f"You are the planner.\n{question}\n"
        + feedback(again, rounds=rounds, otherwise=plan),
        "critic": f"You are the critic.\n{question}\nDraft of a plan: {{{{ plan }}}}\n"
        "Look for gaps, slips and needless steps in the draft, and set the plan right.",
        "solver": f"You are the solver.\nPlan to follow: {{{{ plan }}}}\n{question}\n"
        "Work through the plan with care and end with the result in \\boxed{}.",
    }
