"""Names of the functions in the published code that build each prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["FILES", "TASKS", "Layout", "Role", "layout_of"]

FILES = ("prompts.py", "inference/prompts.py", "train/mas_prompt.py")
"""Possible files of the builders in a clone; the first that exists is used."""

TASKS = {"math": "math", "code": "code", "choice": "choice", "search": "math"}
"""Our task names → those of the published code."""


class Role(NamedTuple):
    """The functions of the published code that build one agent's prompts."""

    role: str
    """Published name of the agent."""
    first: str
    """Builder for round 1, or for every round if `later` is None."""
    slots: Mapping[str, str] = {}
    """Constant that marks a slot → name of our slot."""
    later: str | None = None
    """Builder for round 2 and later."""
    feedback: str | None = None
    """Constant that marks the feedback slot in `later`."""
    positional: tuple[str, ...] = ()
    """Positional arguments after the question."""


class Layout(NamedTuple):
    """The agents of one style."""

    design: str
    """Published name of the style."""
    agents: Mapping[str, Role]


def layout_of(template: str, task: str) -> Layout:
    """The layout of a template; `task` is a key of `TASKS`."""
    return (
        _sequential("code" if task == "code" else "math")
        if template == "sequential"
        else (_OTHERS[template])
    )


def _sequential(kind: str) -> Layout:
    planner = f"build_{kind}_planner_prompt"
    return Layout(
        "chain",
        {
            "planner": Role(
                "planner",
                planner,
                later=f"{planner}_with_feedback_slot",
                feedback="FEEDBACK_SLOT",
            ),
            "critic": Role(
                "refiner", f"build_{kind}_refiner_prompt_with_slot", {"PLANNER_SLOT": "plan"}
            ),
            "solver": Role(
                "solver", f"build_{kind}_solver_prompt_with_slots", {"REFINED_SLOT": "plan"}
            ),
        },
    )


def _expert(name: str) -> Role:
    role = f"hie_{name}_expert"
    return Role(
        role,
        "build_hie_expert_prompt",
        later="build_hie_expert_prompt_with_feedback_slot",
        feedback="HIE_FEEDBACK_SLOT",
        positional=(role,),
    )


_EXPERTS = ("math", "code", "science")

_OTHERS = {
    "mixture": Layout(
        "hie",
        {name: _expert(name) for name in _EXPERTS}
        | {
            "summarizer": Role(
                "hie_summarizer",
                "build_hie_summarizer_prompt_with_slots",
                {f"HIE_{name.upper()}_EXPERT_SLOT": name for name in _EXPERTS},
            )
        },
    ),
    "distillation": Layout(
        "distill",
        {
            "expert": Role(
                "distill_expert",
                "build_distill_expert_prompt",
                later="build_distill_expert_prompt_with_feedback_slot",
                feedback="DISTILL_FEEDBACK_SLOT",
            ),
            "learner": Role(
                "distill_learner",
                "build_distill_learner_prompt_with_slot",
                {"DISTILL_EXPERT_SLOT": "plan"},
            ),
        },
    ),
    "deliberation": Layout(
        "deliberation",
        {
            "reflector": Role(
                "deliberation_reflector",
                "build_deliberation_reflector_prompt",
                later="build_deliberation_reflector_prompt_with_feedback_slot",
                feedback="DELIBERATION_FEEDBACK_SLOT",
            ),
            "toolcaller": Role(
                "deliberation_toolcaller",
                "build_deliberation_toolcaller_prompt_with_slot",
                {"DELIBERATION_REFLECTOR_SLOT": "reflection"},
            ),
        },
    ),
}
