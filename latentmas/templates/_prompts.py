"""Shared parts of the templates' prompts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from latentmas.errors import UnknownNameError
from latentmas.prompts import read_prompt_pack
from latentmas.spec import DEFAULT_LINK, Backbone

__all__ = [
    "PAPER_LINK",
    "TEAM_SYSTEM",
    "Prompts",
    "Task",
    "backbones_of",
    "default_link",
    "feedback",
    "prompt_fields",
    "task_words",
]

Prompts = Mapping[str, str | Mapping[str, str]] | str | Path
"""Agent → its prompt or `{"system": …, "prompt": …}`; or the path of a file with such a mapping."""

TEAM_SYSTEM = "You work in a team of language models that solve problems together, round by round."

PAPER_LINK = "recursive"
"""Link kind of the paper's published systems."""

_FIELDS = ("prompt", "system")


class Task(NamedTuple):
    """Parts of the prompts that depend on the task."""

    shown: str
    """Lines that show the sample's fields: `Question: {{ question }}`."""
    ending: str
    """Instruction on how the output agent should end: the rest of a sentence."""
    not_yet: str
    """Instruction on what the planner should leave to the other agents: a sentence."""


_ENDINGS = {
    "math": "end with the result in \\boxed{}.",
    "code": "end with the whole program in one ```python block.",
    "choice": "end with the letter of the right option in \\boxed{}, such as \\boxed{A}.",
    "search": "end with the answer, a name or a few words, in \\boxed{}.",
}
_NOT_YET = {
    "math": "Do not work it out yet.",
    "code": "Do not write the code yet.",
    "choice": "Do not settle on an option yet.",
    "search": "Do not name the answer yet.",
}


def task_words(task: str, inputs: Iterable[str]) -> Task:
    """Return the task-dependent parts of the prompts.

    Raises:
        UnknownNameError: the task is unknown.
    """
    if task not in _ENDINGS:
        raise UnknownNameError("task", task, _ENDINGS)
    names = {"question": "Programming problem"} if task == "code" else {}
    shown = "\n".join(f"{names.get(name, title(name))}: {{{{ {name} }}}}" for name in inputs)
    return Task(shown, _ENDINGS[task], _NOT_YET[task])


def backbones_of(models: Mapping[str, str]) -> dict[str, Backbone]:
    """A preset's models as backbones, in bfloat16 like their checkpoints."""
    return {role: Backbone(source, dtype="bfloat16") for role, source in models.items()}


def default_link(*models: object) -> str:
    """Default link kind: the paper's if no model is given, otherwise the package default."""
    return DEFAULT_LINK if any(model is not None for model in models) else PAPER_LINK


def feedback(text: str, *, rounds: int, otherwise: str = "") -> str:
    """Show `text`, with the slot `feedback`, from round 2 on, and `otherwise` in round 1."""
    if rounds <= 1:
        return otherwise
    first = f"{{% else %}}{otherwise}" if otherwise else ""
    return f"{{% if feedback %}}{text}{first}{{% endif %}}"


def title(name: str) -> str:
    """A name as the heading of a line: `final_answer` → `Final answer`."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def prompt_fields(
    defaults: Mapping[str, str],
    prompts: Prompts | None,
    *,
    rounds: int,
    system: str | Mapping[str, str | None] = TEAM_SYSTEM,
) -> dict[str, dict[str, Any]]:
    """Return the arguments `prompt` and `system` of `Graph.add_agent` for each agent.

    Args:
        defaults: the template's prompt of each agent.
        prompts: the user's prompts, which replace the defaults.
        rounds: number of rounds; with 1, a slot `feedback` in the user's prompts stays empty.
        system: system turn of agents for which the user sets none, for all agents or by agent.

    Raises:
        DataError: the file that `prompts` names cannot be read.
        UnknownNameError: `prompts` names an agent, or a field, that does not exist.
    """
    own_prompts = read_prompt_pack(prompts) if isinstance(prompts, str | Path) else prompts or {}
    systems = dict.fromkeys(defaults, system) if isinstance(system, str) else system
    fields: dict[str, dict[str, Any]] = {
        agent: {"prompt": prompt, "system": systems[agent]} for agent, prompt in defaults.items()
    }
    for agent, own in own_prompts.items():
        if agent not in fields:
            raise UnknownNameError("agent", agent, fields)
        changes = {"prompt": own} if isinstance(own, str) else dict(own)
        for field in changes:
            if field not in _FIELDS:
                raise UnknownNameError("prompt field", field, _FIELDS)
        if rounds <= 1 and re.search(r"\bfeedback\b", changes.get("prompt", "")):
            changes["prompt"] = "{% set feedback = none %}" + changes["prompt"]
        fields[agent] |= changes
    return fields
