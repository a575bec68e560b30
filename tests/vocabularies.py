"""Backbones with unequal tokenizers, made on the spot."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import latentmas as lm
from latentmas.testing._tiny import CHAT_TEMPLATE

TEXT = [
    "Ben lives in Vienna and owns a cat; Rosa lives in Paris and owns a dog.",
    "What is the job of the lawyer? The answer is on the next line.\n\nHe is a baker, naïve é.",
] * 4
STYLES = ("bytes", "metaspace")


def tokenizer(style: str, size: int) -> Any:
    """A BPE tokenizer of about so many tokens, learnt from a few sentences.

    Args:
        style: `"bytes"` writes bytes as letters (GPT-2); `"metaspace"` writes `▁` for a space and
            falls back to bytes (Llama 2, Gemma).
        size: of the vocabulary.
    """
    bpe = Tokenizer(models.BPE(byte_fallback=style == "metaspace", unk_token="<unk>"))
    special = ["<unk>", "<pad>", "<bos>", "<end>", "<start>"]
    if style == "bytes":
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        bpe.normalizer = normalizers.Replace(" ", "\u2581")
        bpe.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        alphabet = []
    trainer = trainers.BpeTrainer(
        vocab_size=size + len(special),
        special_tokens=special if style == "bytes" else special[:5],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    if style == "metaspace":  # the byte tokens are ordinary tokens, as in Llama 2
        bpe.add_tokens([])
    bpe.train_from_iterator(TEXT, trainer)
    if style == "metaspace":
        bpe = _with_bytes(bpe)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<end>",
        additional_special_tokens=["<start>"],
    )
    fast.chat_template = CHAT_TEMPLATE.replace("<|im_start|>", "<start>").replace(
        "<|im_end|>", "<end>"
    )
    return fast


def _with_bytes(bpe: Tokenizer) -> Tokenizer:
    """The same tokenizer with a token for each byte in its vocabulary."""
    import json

    data = json.loads(bpe.to_str())
    vocabulary = data["model"]["vocab"]
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    return Tokenizer.from_str(json.dumps(data))


@cache
def speaker(
    style: str, size: int, width: int, *, family: str = "llama", padding: int = 0, tied: bool = True
) -> lm.Backbone:
    """A tiny model with that tokenizer.

    Args:
        style: of the tokenizer.
        size: of its vocabulary, about.
        width: of the states.
        family: of the model.
        padding: rows of the vocabulary that no token has.
        tied: whether head and embeddings are one table.
    """
    folder = tempfile.mkdtemp(prefix=f"latentmas-{style}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    own = tokenizer(style, size)
    fields = {
        "vocab_size": len(own) + padding,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.3,
        "tie_word_embeddings": tied,
        "pad_token_id": own.pad_token_id,
        "bos_token_id": own.bos_token_id,
        "eos_token_id": own.eos_token_id,
    }
    if family == "gemma3_text":
        fields |= {"final_logit_softcapping": 5.0, "sliding_window": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(size)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields))
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    return lm.Backbone(folder)
