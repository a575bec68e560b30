"""GGUF files of tiny models, written from their folders in full precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from latentmas.testing._tiny import CHAT_TEMPLATE

ARCHITECTURES = {
    "gemma3_text": "gemma3",
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
"""transformers' `model_type` → the architecture that converters write and transformers reads."""


def write_gguf(family: str, folder: Path, path: Path) -> Path:
    """Write the model of a folder as a GGUF file."""
    import gguf

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    name = ARCHITECTURES[family]
    kind = next(key for key, text in gguf.MODEL_ARCH_NAMES.items() if text == name)
    layers = model.config.num_hidden_layers
    names = gguf.get_tensor_name_map(kind, layers)
    writer = gguf.GGUFWriter(str(path), name)
    _describe(writer, model.config)
    _add_tokenizer(writer, folder)
    for tensor, value in model.state_dict().items():
        mapped = names.get_name(tensor, try_suffixes=(".weight", ".bias"))
        assert mapped is not None, tensor
        writer.add_tensor(mapped, value.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: Any, config: Any) -> None:
    heads, width = config.num_attention_heads, config.hidden_size
    head = getattr(config, "head_dim", None) or width // heads
    writer.add_context_length(512)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_sliding_window(512)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])]
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    tokens[-1] = "ab"  # a file without any merge is not read
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)
