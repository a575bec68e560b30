"""Where the decoders of llama-like families keep their parts.

A family is one entry here. What is not listed runs through its own modules.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

__all__ = ["Layout", "layout_of", "layouts"]


@dataclass(frozen=True)
class Layout:
    """Names of a decoder layer's parts, and how its norms scale.

    All layers have `self_attn` with `q_proj`, `k_proj`, `v_proj`, `o_proj` and, in some families,
    `q_norm` and `k_norm`; `mlp` with `gate_proj`, `up_proj`, `down_proj`; and `input_layernorm`.
    """

    decoder: str
    """Class of the decoder in transformers, with the module that defines it."""
    before_mlp: str = "post_attention_layernorm"
    """Norm of what the MLP reads."""
    after_attention: str | None = None
    """Norm of what attention adds to the residual."""
    after_mlp: str | None = None
    """Norm of what the MLP adds to the residual."""
    norm_offset: float = 0.0
    """Added to the weights of norms. If it is not 0, they are applied in fp32, before the result
    returns to the model's type."""
    rotary_by_kind: bool = False
    """Whether full and sliding layers have rotations of their own."""


layouts: tuple[Layout, ...] = (
    Layout("llama.modeling_llama.LlamaModel"),
    Layout("qwen2.modeling_qwen2.Qwen2Model"),
    Layout("qwen3.modeling_qwen3.Qwen3Model"),
    Layout("mistral.modeling_mistral.MistralModel"),
    Layout(
        "gemma3.modeling_gemma3.Gemma3TextModel",
        before_mlp="pre_feedforward_layernorm",
        after_attention="post_attention_layernorm",
        after_mlp="post_feedforward_layernorm",
        norm_offset=1.0,
        rotary_by_kind=True,
    ),
)


def layout_of(decoder: nn.Module) -> Layout | None:
    """The layout of a decoder; None for a class that is not listed, a subclass included."""
    kind = type(decoder)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return next((x for x in layouts if f"transformers.models.{x.decoder}" == name), None)
