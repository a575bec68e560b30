"""`tiny_backbone`: create the folder of a random model of a few kilobytes."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from latentmas.spec import Backbone

__all__ = ["TINY_FAMILIES", "tiny_backbone"]

TINY_FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma3_text", "qwen3_5_text")
"""Values of `model_type` that `tiny_backbone` supports."""

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_backbone(
    family: str = "llama",
    hidden_size: int = 32,
    *,
    layers: int = 2,
    seed: int = 0,
    folder: str | Path | None = None,
    **config: Any,
) -> Backbone:
    """Create a small random model with a byte-level tokenizer and a chat template.

    Args:
        family: one of `TINY_FAMILIES`.
        hidden_size: width D, a multiple of 8.
        layers: number of decoder layers (in `qwen3_5_text`, every fourth has full attention).
        seed: random seed of the weights.
        folder: destination; None uses a temporary folder, which is removed when Python exits.
        **config: other fields of the model's configuration, such as `sliding_window=8`.

    Returns:
        Its declaration, which is loaded through a plan like any other backbone.

    Raises:
        ValueError: the family is unknown.
    """
    if family not in TINY_FAMILIES:
        raise ValueError(f"unknown family {family!r}; choose one of {', '.join(TINY_FAMILIES)}")
    if folder is None:
        folder = _temporary(family, hidden_size, layers, seed, tuple(sorted(config.items())))
    else:
        _write(Path(folder), family, hidden_size, layers, seed, config)
    return Backbone(str(folder))


@cache
def _temporary(family: str, hidden: int, layers: int, seed: int, config: tuple[Any, ...]) -> str:
    folder = tempfile.mkdtemp(prefix=f"latentmas-{family}-{hidden}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _write(Path(folder), family, hidden, layers, seed, dict(config))
    return folder


def _write(
    folder: Path, family: str, hidden: int, layers: int, seed: int, extra: dict[str, Any]
) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tokenizer_of_bytes()
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": max(8, hidden // 4),
        "max_position_embeddings": 4096,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": True,
    }
    if family == "qwen3_5_text":
        fields |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
        fields |= {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
        kinds = [
            "full_attention" if i % 4 == 3 or layers == 1 else "linear_attention"
            for i in range(layers)
        ]
        fields["layer_types"] = (
            kinds if "full_attention" in kinds else [*kinds[:-1], "full_attention"]
        )
    config = AutoConfig.for_model(family, **(fields | extra))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tokenizer_of_bytes() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<|im_end|>", "<|im_start|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(special + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        padding_side="left",
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
