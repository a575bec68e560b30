"""Facts about a backbone, known from its configuration alone."""

from __future__ import annotations

from pydantic import Field

from latentmas.spec import Backbone, Frozen

__all__ = ["BackboneCosts", "BackboneInfo", "PlanBackbone"]


class BackboneCosts(Frozen):
    """What a roofline needs to know of a model: counts, whatever the type of its weights.

    A layer that has both attention and a recurrent state counts in both.
    """

    body_parameters: int
    """Weights of the decoder without embedding and vocabulary head; each call reads all of them."""
    head_parameters: int
    """Weights of the vocabulary head, read for each token that is written."""
    loaded_parameters: int
    """All weights that loading puts into memory; shared ones count once."""
    widest: int
    """Largest width inside a layer, mostly its MLP's."""
    attention_width: int = 0
    """Heads times their size, over the layers that attend to all positions."""
    kv_elements: int = 0
    """Keys and values that those layers keep of one position."""
    sliding_window: int | None = None
    """Positions that sliding layers attend to, the newest included; None: there are none."""
    sliding_attention_width: int = 0
    """As `attention_width`, over the sliding layers."""
    sliding_kv_elements: int = 0
    """As `kv_elements`, over the sliding layers."""
    recurrent_elements: int = 0
    """Recurrent state of one row, kept in float32 (linear attention)."""
    conv_elements: int = 0
    """Convolution state of one row, in the weights' type."""
    recurrent_width: int = 0
    """Width of what one recurrent layer takes in: queries, keys and values together."""
    layers: dict[str, int] = Field(default_factory=dict)
    """Number of layers by kind: `full`, `sliding`, `recurrent`."""
    dtype: str | None = None
    """The checkpoint's own type, where its configuration says so."""


class BackboneInfo(Frozen):
    """What the compiler needs to know of a model; no weights involved."""

    model_type: str
    """transformers' `model_type`, such as `"qwen3"`."""
    hidden_size: int = Field(ge=1, le=2**20)
    """Width D of the states."""
    vocab_size: int = Field(ge=1, le=2**28)
    """Size V of the vocabulary."""
    num_layers: int = Field(ge=0, le=2**16)
    """Decoder layers."""
    max_positions: int | None = Field(default=None, ge=0)
    """Longest context in tokens, where the configuration says so."""
    costs: BackboneCosts | None = None
    """Counts for `Plan.explain`; None where they are not known. No part of a plan's digest."""


class PlanBackbone(Frozen):
    """A backbone of a plan: loaded once for all its agents."""

    spec: Backbone
    info: BackboneInfo
    agents: tuple[str, ...]
    """Agents that run on it, in declaration order."""
