"""Facts about a backbone, known from its configuration alone."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from latentmas.spec import Backbone, Frozen

__all__ = ["AdapterInfo", "BackboneCosts", "BackboneInfo", "PlanBackbone", "QuantizedCosts"]


class QuantizedCosts(Frozen):
    """Counts of the weights that are stored quantised."""

    bits: float = Field(gt=0, le=64)
    """Stored bits per weight, with scales."""
    body_parameters: int
    """How many of `BackboneCosts.body_parameters` are quantised."""
    loaded_parameters: int
    """How many of `BackboneCosts.loaded_parameters` are quantised."""

    def stored(self, count: int, quantized: int, size: int) -> float:
        """Bytes of `count` weights of `size` bytes, `quantized` of which take fewer bits."""
        return (count - quantized) * size + quantized * self.bits / 8


class BackboneCosts(Frozen):
    """Counts of a model for the roofline, independent of the type of its weights.

    A layer with both attention and a recurrent state is counted in both.
    """

    body_parameters: int
    """Weights of the decoder without embeddings and vocabulary head; every call reads them all."""
    head_parameters: int
    """Weights of the vocabulary head, read for each generated token."""
    loaded_parameters: int
    """All weights loaded into memory; shared weights count once."""
    widest: int
    """Largest width inside a layer, usually that of its MLP."""
    attention_width: int = 0
    """Number of heads times head size, summed over the layers with full attention."""
    kv_elements: int = 0
    """Number of key and value elements that those layers store per position."""
    sliding_window: int | None = None
    """Number of positions that sliding layers attend to, including the newest. None: no such
    layers."""
    sliding_attention_width: int = 0
    """Same as `attention_width`, over the sliding layers."""
    sliding_kv_elements: int = 0
    """Same as `kv_elements`, over the sliding layers."""
    recurrent_elements: int = 0
    """Recurrent state of one row, kept in float32 (linear attention)."""
    conv_elements: int = 0
    """Convolution state of one row, in the weights' type."""
    recurrent_width: int = 0
    """Input width of one recurrent layer: queries, keys and values together."""
    layers: dict[str, int] = Field(default_factory=dict)
    """Number of layers by kind: `full`, `sliding`, `recurrent`."""
    dtype: str | None = None
    """The checkpoint's own data type, if its configuration states it."""
    quantized: QuantizedCosts | None = None
    """Weights that are stored quantised. None: there are none."""

    def body_bytes(self, size: int) -> float:
        """Bytes of the decoder's weights, at `size` bytes per weight that is not quantised."""
        count, part = self.body_parameters, self.quantized
        return count * size if part is None else part.stored(count, part.body_parameters, size)

    def loaded_bytes(self, size: int) -> float:
        """Bytes of all loaded weights, at `size` bytes per weight that is not quantised."""
        count, part = self.loaded_parameters, self.quantized
        return count * size if part is None else part.stored(count, part.loaded_parameters, size)

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = write(self)
        return {name: value for name, value in data.items() if name != "quantized" or value}


class AdapterInfo(Frozen):
    """Facts about a LoRA adapter, from its configuration alone."""

    r: int = Field(ge=1, le=2**16)
    """Rank, the largest where modules have ranks of their own."""
    targets: tuple[str, ...]
    """Names of the adapted modules as the configuration has them, sorted; a single entry may be a
    regular expression."""
    base_model: str | None = None
    """Model that the adapter was trained on, as the configuration names it."""
    n_parameters: int | None = Field(default=None, ge=0)
    """Number of weights; None if unknown. Not part of a plan's digest."""


class BackboneInfo(Frozen):
    """Facts about a model that the compiler needs; no weights involved."""

    model_type: str
    """transformers' `model_type`, such as `"qwen3"`."""
    hidden_size: int = Field(ge=1, le=2**20)
    """Width D of the states."""
    vocab_size: int = Field(ge=1, le=2**28)
    """Size V of the vocabulary."""
    num_layers: int = Field(ge=0, le=2**16)
    """Decoder layers."""
    max_positions: int | None = Field(default=None, ge=0)
    """Maximum context length in tokens, if the configuration states it."""
    costs: BackboneCosts | None = None
    """Counts for `Plan.explain`; None if unknown. Not part of a plan's digest."""
    adapter: AdapterInfo | None = None
    """Facts about the backbone's adapter; None if it has none."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the adapter of a backbone that has none: digests stay as they were."""
        data: dict[str, Any] = write(self)
        return {key: v for key, v in data.items() if key != "adapter" or v is not None}


class PlanBackbone(Frozen):
    """A backbone of a plan: loaded once for all its agents."""

    spec: Backbone
    info: BackboneInfo
    agents: tuple[str, ...]
    """Agents that run on this backbone, in declaration order."""
