"""Agents, edges and text sources, as declared."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from latentmas.spec._base import Frozen

__all__ = ["DEFAULT_LINK", "TEXT", "AgentSpec", "EdgeSpec", "LinkSpec", "TextSourceSpec"]

_NO_VARIABLES = frozenset(
    {
        *("add_generation_prompt", "chat_template", "continue_final_message", "conversation"),
        *("max_length", "padding", "return_assistant_tokens_mask", "return_dict"),
        *("return_tensors", "self", "tokenize", "tokenizer_kwargs", "tools", "truncation"),
    }
)
"""Arguments of `apply_chat_template` that are not handed to the template."""
DEFAULT_LINK = "soft_token"
"""The link kind where none is named: it goes through the vocabulary and needs no training."""
TEXT = "text"
"""The link kind of an edge on which the source speaks: it decodes, no weights, no gradient."""


class LinkSpec(Frozen):
    """What kind of map carries the latents, and how its weights start."""

    kind: str = DEFAULT_LINK
    """A name in the link registry, or `"text"`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of that kind, such as `{"expansion": 2}`."""
    init: Literal["default", "near_identity", "ridge"] = "default"
    """How the weights start."""
    norm: Literal["embedding", "none"] | None = None
    """`"embedding"`: scale the output to the receiver's mean embedding norm. None: where it can."""
    share: str | None = None
    """Links that give one name here have one set of weights."""

    @field_validator("options")
    @classmethod
    def _plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name, value in options.items():
            if not isinstance(value, str | int | float | bool | None):
                raise ValueError(
                    f"option {name!r} must be a plain value, found {type(value).__name__}"
                )
        return options


class AgentSpec(Frozen):
    """A named role: a backbone, a prompt and a number of latent steps."""

    name: str
    backbone: str
    """Key in `GraphSpec.backbones`."""
    prompt: str
    """Jinja2 template of the user turn; its variables are sample fields or slots."""
    system: str | None = None
    """Jinja2 template of the system turn."""
    latent_steps: int | None = None
    """Latent steps K of this agent; None takes the graph's."""
    allow_empty: bool = False
    """Permit `latent_steps=0`, the null channel."""
    inner: LinkSpec = LinkSpec()
    """The inner link, from this agent's states back to its own input embeddings."""
    max_new_tokens: int | None = None
    """Most tokens this agent writes when it decodes, where a run sets no limit; None: 256."""
    chat_options: dict[str, Any] = Field(default_factory=lambda: {"enable_thinking": False})
    """Keywords for the tokenizer's chat template."""
    tools: tuple[str, ...] = ()
    """Names of tools that it may call while it decodes: registered, or given to `Plan.load`."""
    tool_style: Literal["tags", "chat"] = "tags"
    """How a call looks: `<python>…</python>` in the text, or as the chat template has it."""
    max_tool_calls: int = 5
    """Most calls in one answer; after them the agent must answer without."""

    @field_validator("chat_options")
    @classmethod
    def _variables(cls, options: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(_NO_VARIABLES & set(options))
        if taken:
            raise ValueError(
                f"{taken[0]!r} is not a variable of the chat template; change the model's tokenizer"
            )
        return options


class EdgeSpec(Frozen):
    """A directed edge that fills one slot of the target's prompt."""

    source: str
    """An agent or a text source."""
    target: str
    slot: str | None = None
    """Slot of the target's prompt; None: the one named like the source, else the only one left."""
    delay: int = 0
    """0: used in the round that made it. 1: in the next round (feedback)."""
    link: LinkSpec = LinkSpec()
    combine: Literal["concat", "mean"] | None = Field(
        default=None,
        exclude_if=lambda how: how is None,  # so that other edges keep their digest
    )
    """How several edges that fill one slot are made into one message: `"concat"`, the rows of one
    after those of the other, or `"mean"`, row by row. All edges of the slot name the same."""

    @property
    def id(self) -> str:
        """`source->target.slot`, unique in a valid graph."""
        return f"{self.source}->{self.target}.{self.slot or '?'}"


class TextSourceSpec(Frozen):
    """Text from outside the team: a constant, or a function given when the plan is loaded."""

    name: str
    text: str | None = None
    """The constant; None means that a function computes it from each sample."""
