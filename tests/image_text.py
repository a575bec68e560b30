"""Tiny image-text models, and plain language models with the weights of their text bodies."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)

from latentmas.testing._tiny import tokenizer_of_bytes

PLAIN_TYPES = {
    "deepseek_vl": "llama",
    "exaone4_5": "exaone4",
    "gemma3": "gemma3_text",
    "got_ocr2": "qwen2",
    "idefics2": "mistral",
    "idefics3": "llama",
    "internvl": "qwen2",
    "lfm2_vl": "lfm2",
    "lighton_ocr": "qwen3",
    "llava": "llama",
    "llava_next": "llama",
    "llava_next_video": "llama",
    "llava_onevision": "qwen2",
    "mistral3": "mistral",
    "qianfan_ocr": "qwen3",
    "qwen2_5_vl": "qwen2",
    "qwen2_vl": "qwen2",
    "qwen3_vl": "qwen3",
    "smolvlm": "llama",
    "video_llama_3": "qwen2",
    "video_llava": "llama",
    "vipllava": "llama",
}
"""Image-text type → type of a plain language model that computes what its text body computes."""
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.12,
    "tie_word_embeddings": False,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "depth": 1,
    "num_heads": 2,
    "embed_dim": 16,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
    "spatial_merge_size": 1,
    "deepstack_visual_indexes": [0],
}
THREE_AXES = {
    "rope_type": "default",
    "rope_theta": 10_000.0,
    "mrope_section": [1, 1, 2],
    "mrope_interleaved": True,
}
"""Qwen's positions in time, height and width; for text, all three are the same."""
IMAGE_TOKENS = (
    *("image_token_index", "image_token_id", "video_token_index", "video_token_id"),
    *("vision_start_token_id", "vision_end_token_id"),
)


def tiny_config(model_type: str) -> Any:
    """A configuration of the type, with sizes of a few units."""
    default = AutoConfig.for_model(model_type)
    text, vision = default.get_text_config(decoder=True), default.vision_config
    sizes = TEXT | {"vocab_size": len(tokenizer_of_bytes())}
    fields = {n: value for n, value in sizes.items() if n == "head_dim" or hasattr(text, n)}
    if "_vl_text" in text.model_type:
        fields["rope_parameters"] = THREE_AXES
    if text.model_type == "lfm2":
        fields["layer_types"] = ["conv", "full_attention"]
    own = {n: value for n, value in VISION.items() if hasattr(vision, n)}
    extra: dict[str, Any] = {n: 5 for n in IMAGE_TOKENS if hasattr(default, n)}
    if hasattr(default, "vision_feature_layer"):
        extra["vision_feature_layer"] = -1
    return AutoConfig.for_model(
        model_type,
        text_config=fields | {"model_type": text.model_type},
        vision_config=own | {"model_type": vision.model_type},
        **extra,
    )


def write_pair(model_type: str, folder: Path) -> tuple[Path, Path]:
    """Save an image-text model, and the plain model with the weights of its text body."""
    torch.manual_seed(0)
    config = tiny_config(model_type)
    whole = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    plain = _plain(whole, config.get_text_config(decoder=True), PLAIN_TYPES[model_type])
    for name, model in (("whole", whole), ("plain", plain)):
        model.save_pretrained(folder / name)
        tokenizer_of_bytes().save_pretrained(folder / name)
    return folder / "whole", folder / "plain"


def _plain(whole: PreTrainedModel, text: Any, plain_type: str) -> PreTrainedModel:
    fields = {n: value for n, value in text.to_dict().items() if n not in ("model_type", "dtype")}
    if "rope_parameters" in fields and "mrope_section" in fields["rope_parameters"]:
        fields["rope_parameters"] = {"rope_type": "default", "rope_theta": 10_000.0}
    known = set(_defaults(plain_type))
    config = AutoConfig.for_model(plain_type, **{n: fields[n] for n in fields if n in known})
    plain: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.get_decoder().load_state_dict(whole.get_decoder().state_dict())
    plain.get_output_embeddings().load_state_dict(whole.get_output_embeddings().state_dict())
    return plain


@cache
def _defaults(model_type: str) -> tuple[str, ...]:
    return tuple(AutoConfig.for_model(model_type).to_dict())
