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
"""Arguments of `apply_chat_template` that are not passed to the template."""
DEFAULT_LINK = "soft_token"
"""The default link kind: it maps through the vocabulary and needs no training."""
TEXT = "text"
"""The link kind of a text edge: the source decodes text; no weights, no gradient."""


class LinkSpec(Frozen):
    """What kind of map carries the latents, and how its weights start."""

    kind: str = DEFAULT_LINK
    """Link kind: a name in the registry, or `"text"`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the link kind, such as `{"expansion": 2}`."""
    init: Literal["default", "near_identity", "ridge"] = "default"
    """Initialisation of the weights."""
    norm: Literal["embedding", "none"] | None = None
    """Output norm. `"embedding"`: the receiver's mean embedding norm. None: that, if possible."""
    share: str | None = None
    """Name of a set of weights; links with the same name share theirs."""

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
    """Key of the backbone in `GraphSpec.backbones`."""
    prompt: str
    """Jinja2 template of the user turn; its variables are sample fields or slots."""
    system: str | None = None
    """Jinja2 template of the system turn."""
    latent_steps: int | None = None
    """Number of latent steps K of this agent. None: the graph's."""
    allow_empty: bool = False
    """Allow `latent_steps=0`, the null channel."""
    inner: LinkSpec = LinkSpec()
    """The inner link, from this agent's states back to its own input embeddings."""
    max_new_tokens: int | None = None
    """Maximum number of new tokens when this agent decodes and the run sets no limit. None: 256."""
    chat_options: dict[str, Any] = Field(default_factory=lambda: {"enable_thinking": False})
    """Keyword arguments for the tokenizer's chat template."""
    tools: tuple[str, ...] = ()
    """Names of tools the agent may call while it decodes: registered or passed to `Plan.load`."""
    tool_style: Literal["tags", "chat"] = "tags"
    """Syntax of tool calls. `tags`: `<python>…</python>`. `chat`: as in the chat template."""
    max_tool_calls: int = 5
    """Maximum number of tool calls in one answer; then the agent must answer without tools."""

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
    """Name of an agent or a text source."""
    target: str
    slot: str | None = None
    """Slot of the target's prompt. None: the one named after the source, or the only free one."""
    delay: int = 0
    """Delay in rounds. 0: the message is used in its own round. 1: in the next round (feedback)."""
    link: LinkSpec = LinkSpec()
    combine: Literal["concat", "mean"] | None = Field(
        default=None,
        exclude_if=lambda how: how is None,  # keeps the digests of edges that do not set it
    )
    """How several edges into one slot become one message: `"concat"` concatenates their rows,
    `"mean"` averages them row by row. All edges of the slot must use the same value."""

    @property
    def id(self) -> str:
        """`source->target.slot`, unique in a valid graph."""
        return f"{self.source}->{self.target}.{self.slot or '?'}"


class TextSourceSpec(Frozen):
    """Text from outside the team: a constant, or a function passed when the plan is loaded."""

    name: str
    text: str | None = None
    """Constant text. None: a function computes the text of each sample."""
