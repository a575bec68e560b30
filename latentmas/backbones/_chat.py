"""Conversations rendered with a tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from latentmas.prompts import ChatMessage, render_chat_template

__all__ = ["chat_text", "render_turns"]

WORD = "latentmas-probe"


def chat_text(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[ChatMessage],
    options: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Render turns with the chat template, ending with the header of the assistant's turn.

    If the template rejects a system turn, the system text is prepended to the user turn; without a
    template, the text is returned as it is.

    Args:
        tokenizer: Tokenizer whose template to use.
        turns: Turns in order.
        options: Variables of the template.
        tools: JSON schemas of the tools.

    Raises:
        jinja2.TemplateError: Same as for `render_turns`.
    """
    if not tokenizer.chat_template:
        return "\n\n".join(turn.content for turn in turns)
    try:
        return render_turns(tokenizer, turns, options, tools, add_generation_prompt=True)
    except (
        SecurityError
    ):  # not a rejected turn: the template exceeds its budget or violates the sandbox
        raise
    except TemplateError:
        if len(turns) < 2:
            raise
        merged = ChatMessage("user", "\n\n".join(turn.content for turn in turns))
        return render_turns(tokenizer, [merged], options, tools, add_generation_prompt=True)


def render_turns(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[ChatMessage],
    options: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    add_generation_prompt: bool = False,
) -> str:
    """Same result as `apply_chat_template`, within the budget of prompts.

    Args:
        tokenizer: Tokenizer with a chat template.
        turns: Turns in order.
        options: Variables of the template.
        tools: JSON schemas of the tools.
        add_generation_prompt: End with the header of the assistant's turn.

    Raises:
        jinja2.TemplateError: The template rejects the turns, fails, or exceeds the budget of a
            prompt (`SecurityError`).
    """
    given = [dict(tool) for tool in tools] or None
    template = str(tokenizer.get_chat_template(None, given))
    messages: list[dict[str, Any]] = [turn._asdict() for turn in turns]
    if _reads_parts(template):
        messages = [turn | {"content": _in_parts(turn["content"])} for turn in messages]
    return render_chat_template(
        template,
        messages,
        tools=given,
        variables={**tokenizer.special_tokens_map, **options},
        add_generation_prompt=add_generation_prompt,
    )


@lru_cache(maxsize=64)
def _reads_parts(template: str) -> bool:
    """Whether a template writes a text only where it is given as a list of parts.

    Templates of image-text models may loop over `content`, of which each part has a `type`.
    """
    return (
        "content" in template and not _writes(template, WORD) and _writes(template, _in_parts(WORD))
    )


def _writes(template: str, content: Any) -> bool:
    try:
        return WORD in render_chat_template(template, [{"role": "user", "content": content}])
    except TemplateError:
        return False


def _in_parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]
