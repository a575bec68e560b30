"""What the templates' prompts have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from latentmas.errors import UnknownNameError

__all__ = ["SYSTEM", "Prompts", "feedback", "prompt_fields", "task"]

Prompts = Mapping[str, str | Mapping[str, str]]
"""Agent → its prompt, or `{"system": …, "prompt": …}`."""

SYSTEM = "You work in a team of language models that solve problems together, round by round."

_FIELDS = ("prompt", "system")


def task(inputs: str | Iterable[str]) -> str:
    """The lines of a prompt that show the sample's fields: `Question: {{ question }}`."""
    listed = [inputs] if isinstance(inputs, str) else inputs
    return "\n".join(f"{title(name)}: {{{{ {name} }}}}" for name in listed)


def feedback(text: str, *, rounds: int, otherwise: str = "") -> str:
    """`text`, which holds the slot `feedback`, from the second round on; before, `otherwise`."""
    if rounds <= 1:
        return otherwise
    first = f"{{% else %}}{otherwise}" if otherwise else ""
    return f"{{% if feedback %}}{text}{first}{{% endif %}}"


def title(name: str) -> str:
    """A name as the first words of a line: `final_answer` → `Final answer`."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def prompt_fields(
    defaults: Mapping[str, str], prompts: Prompts | None, *, system: str = SYSTEM
) -> dict[str, dict[str, Any]]:
    """Keywords `prompt` and `system` of `Graph.add_agent`, for each agent.

    Args:
        defaults: the template's own prompt of each agent.
        prompts: the user's, in place of some of them.
        system: system turn of agents whose user sets none.

    Raises:
        UnknownNameError: `prompts` names an agent, or a field, that does not exist.
    """
    fields: dict[str, dict[str, Any]] = {
        agent: {"prompt": prompt, "system": system} for agent, prompt in defaults.items()
    }
    for agent, own in (prompts or {}).items():
        if agent not in fields:
            raise UnknownNameError("agent", agent, fields)
        changes = {"prompt": own} if isinstance(own, str) else dict(own)
        for field in changes:
            if field not in _FIELDS:
                raise UnknownNameError("prompt field", field, _FIELDS)
        fields[agent] |= changes
    return fields
