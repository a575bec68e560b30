"""Turns of a conversation as a tokenizer's chat template writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from latentmas.prompts import Turn, render_chat_template

__all__ = ["chat_text", "render_turns"]


def chat_text(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    options: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The chat template's text, ending where the assistant begins.

    A template that refuses a system turn gets it as the beginning of the user turn; a tokenizer
    without a template gets the plain text.

    Args:
        tokenizer: whose template.
        turns: in their order.
        options: variables of the template.
        tools: JSON schemas.

    Raises:
        jinja2.TemplateError: as `render_turns`.
    """
    if not tokenizer.chat_template:
        return "\n\n".join(turn.content for turn in turns)
    try:
        return render_turns(tokenizer, turns, options, tools, add_generation_prompt=True)
    except SecurityError:  # no refusal: the template costs too much, or reaches out of the sandbox
        raise
    except TemplateError:
        if len(turns) < 2:
            raise
        merged = Turn("user", "\n\n".join(turn.content for turn in turns))
        return render_turns(tokenizer, [merged], options, tools, add_generation_prompt=True)


def render_turns(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    options: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    add_generation_prompt: bool = False,
) -> str:
    """What `apply_chat_template` gives, under the budget of prompts.

    Args:
        tokenizer: it has a chat template.
        turns: in their order.
        options: variables of the template.
        tools: JSON schemas.
        add_generation_prompt: end where the assistant begins.

    Raises:
        jinja2.TemplateError: the template refuses the turns, fails, or costs more than a prompt
            may (`SecurityError`).
    """
    given = [dict(tool) for tool in tools] or None
    return render_chat_template(
        str(tokenizer.get_chat_template(None, given)),
        [turn._asdict() for turn in turns],
        tools=given,
        variables={**tokenizer.special_tokens_map, **options},
        add_generation_prompt=add_generation_prompt,
    )
