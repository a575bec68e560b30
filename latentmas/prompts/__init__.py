"""Prompt templates, rendered in a sandbox within a budget into trusted and untrusted segments.

No torch.
"""

from latentmas.prompts.chat_templates import check_chat_template_text, render_chat_template
from latentmas.prompts.packs import read_prompt_pack, write_prompt_pack
from latentmas.prompts.render import (
    RESERVED,
    ChatMessage,
    SlotMisuseError,
    check_template,
    misused_variables,
    placed_variables,
    prompt_variables,
    render_prompt,
    template_variables,
)
from latentmas.prompts.segments import Segment, Text, segments_of

__all__ = [
    "RESERVED",
    "Segment",
    "SlotMisuseError",
    "Text",
    "ChatMessage",
    "check_chat_template_text",
    "check_template",
    "misused_variables",
    "placed_variables",
    "prompt_variables",
    "read_prompt_pack",
    "render_chat_template",
    "render_prompt",
    "segments_of",
    "template_variables",
    "write_prompt_pack",
]
