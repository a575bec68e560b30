"""The five published systems: their roles, repositories and the names of their outer links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from latentmas.errors import UnknownNameError

__all__ = ["STYLES", "Style", "find_style"]

_HUB = "RecursiveMAS"


class Style(NamedTuple):
    """A published system as an instance of a template."""

    template: str
    roles: Mapping[str, str]
    """Agent, which is also the name of its folder → Hub repository."""
    outer: str
    """Hub repository of the outer links."""
    links: Mapping[str, str]
    """Published name of an outer link → `source->target.slot`."""


def _sequential(planner: str, critic: str, solver: str, size: str) -> Style:
    models = {"planner": planner, "critic": critic, "solver": solver}
    stem = f"{_HUB}/Sequential-{size}"
    return Style(
        "sequential",
        {role: f"{stem}-{role.title()}-{model}" for role, model in models.items()},
        f"{stem}-Outerlinks",
        {
            "outer_12": "planner->critic.plan",
            "outer_23": "critic->solver.plan",
            "outer_31": "solver->planner.feedback",
        },
    )


STYLES: dict[str, Style] = {
    "sequential_light": _sequential("Qwen3-1.7B", "Llama3.2-1B", "Qwen2.5-Math-1.5B", "Light"),
    "sequential_scaled": _sequential("Gemma3-4B", "Llama3.2-3B", "Qwen3.5-4B", "Scaled"),
    "mixture": Style(
        "mixture",
        {
            "math": f"{_HUB}/Mixture-Math-DeepSeek-R1-Distill-Qwen-1.5B",
            "code": f"{_HUB}/Mixture-Code-Qwen2.5-Coder-3B",
            "science": f"{_HUB}/Mixture-Science-BioMistral-7B",
            "summarizer": f"{_HUB}/Mixture-Summarizer-Qwen3.5-2B",
        },
        f"{_HUB}/Mixture-Outerlinks",
        {
            "outer_1s": "math->summarizer.math",
            "outer_2s": "code->summarizer.code",
            "outer_3s": "science->summarizer.science",
            "outer_s1": "summarizer->math.feedback",
            "outer_s2": "summarizer->code.feedback",
            "outer_s3": "summarizer->science.feedback",
        },
    ),
    "distillation": Style(
        "distillation",
        {
            "expert": f"{_HUB}/Distillation-Expert-Qwen3.5-9B",
            "learner": f"{_HUB}/Distillation-Learner-Qwen3.5-4B",
        },
        f"{_HUB}/Distillation-Outerlinks",
        {"outer_el": "expert->learner.plan", "outer_le": "learner->expert.feedback"},
    ),
    "deliberation": Style(
        "deliberation",
        {
            "reflector": f"{_HUB}/Deliberation-Reflector-Qwen3.5-4B",
            "toolcaller": f"{_HUB}/Deliberation-Toolcaller-Qwen3.5-4B",
        },
        f"{_HUB}/Deliberation-Outerlinks",
        {
            "outer_rt": "reflector->toolcaller.reflection",
            "outer_tr": "toolcaller->reflector.feedback",
        },
    ),
}
"""Published systems by name."""


def find_style(name: str) -> Style:
    """The style of that name.

    Raises:
        UnknownNameError: the style is unknown; the message suggests the closest name.
    """
    if name not in STYLES:
        raise UnknownNameError("published system", name, STYLES)
    return STYLES[name]
