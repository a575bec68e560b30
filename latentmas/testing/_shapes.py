"""Shapes of the paper's models, the source of the parameter counts in this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["SHAPES", "config_of"]


def config_of(model_type: str, **fields: Any) -> PreTrainedConfig:
    """Build a transformers configuration of the given model type."""
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type, **fields)


def _shape(width: int, inner: int, layers: int, heads: int, kv: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "tie_word_embeddings": True,
    } | more


QWEN2, QWEN35, LLAMA = 151936, 248320, 128256
GEMMA = {
    "text_config": _shape(
        2560, 10240, 34, 8, 4, head_dim=256, sliding_window=1024, vocab_size=262208
    ),
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 896,
        "patch_size": 14,
        "vision_use_head": False,
    },
}

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "BioMistral/BioMistral-7B": (
        "mistral",
        _shape(
            4096,
            14336,
            32,
            32,
            8,
            vocab_size=32000,
            sliding_window=4096,
            tie_word_embeddings=False,
        ),
    ),
    "Qwen/Qwen2.5-Coder-3B-Instruct": ("qwen2", _shape(2048, 11008, 36, 16, 2, vocab_size=QWEN2)),
    "Qwen/Qwen2.5-Math-1.5B-Instruct": ("qwen2", _shape(1536, 8960, 28, 12, 2, vocab_size=QWEN2)),
    "Qwen/Qwen3-1.7B": ("qwen3", _shape(2048, 6144, 28, 16, 8, head_dim=128, vocab_size=QWEN2)),
    "Qwen/Qwen3.5-2B": (
        "qwen3_5_text",
        _shape(2048, 6144, 24, 8, 2, head_dim=256, vocab_size=QWEN35, linear_num_value_heads=16),
    ),
    "Qwen/Qwen3.5-4B": (
        "qwen3_5_text",
        _shape(2560, 9216, 32, 16, 4, head_dim=256, vocab_size=QWEN35),
    ),
    "Qwen/Qwen3.5-9B": (
        "qwen3_5_text",
        _shape(4096, 12288, 32, 16, 4, head_dim=256, vocab_size=QWEN35, tie_word_embeddings=False),
    ),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": (
        "qwen2",
        _shape(1536, 8960, 28, 12, 2, vocab_size=QWEN2, tie_word_embeddings=False),
    ),
    "google/gemma-3-4b-it": ("gemma3", GEMMA),
    "meta-llama/Llama-3.2-1B-Instruct": (
        "llama",
        _shape(2048, 8192, 16, 32, 8, head_dim=64, vocab_size=LLAMA),
    ),
    "meta-llama/Llama-3.2-3B-Instruct": (
        "llama",
        _shape(3072, 8192, 28, 24, 8, head_dim=128, vocab_size=LLAMA),
    ),
}
"""Hub id → `model_type` and the configuration fields that determine parameter counts."""
