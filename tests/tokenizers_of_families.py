"""Tokenizers of transformers' own classes with small vocabularies, made on the spot."""

from __future__ import annotations

from functools import cache
from typing import Any

import transformers
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from latentmas.testing._tiny import tokenizer_of_bytes

LETTERS = [chr(code) for code in range(33, 127)]
BYTES = [f"<0x{code:02X}>" for code in range(256)]
SPECIAL = {
    "LlamaTokenizer": ["<unk>", "<s>", "</s>"],
    "GemmaTokenizer": ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
    "Qwen2Tokenizer": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "GPT2Tokenizer": ["<|endoftext|>", "<|user|>"],
    "T5Tokenizer": ["<pad>", "</s>", "<unk>"],
    "ByT5Tokenizer": ["<pad>", "</s>", "<unk>"],
    "BertTokenizer": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "bytes": ["<|im_start|>", "<|im_end|>"],
}
NAMES = tuple(SPECIAL)


def _vocabulary(name: str) -> Any:
    special = SPECIAL[name]
    if name == "T5Tokenizer":
        return [(token, 0.0) for token in special] + [(letter, -3.0) for letter in [*LETTERS, "▁"]]
    if name == "BertTokenizer":
        words = [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
    elif name in ("LlamaTokenizer", "GemmaTokenizer"):
        words = [*BYTES, *LETTERS, "▁", "\n"]
    else:
        words = [*LETTERS, "Ġ", "Ċ"]
    return {word: i for i, word in enumerate([*special, *words])}


@cache
def make(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer with special tokens, and with added ones that are not marked as special."""
    if name == "bytes":
        tokenizer = tokenizer_of_bytes()
    elif name == "ByT5Tokenizer":  # the one that is written in Python
        tokenizer = transformers.ByT5Tokenizer()
    else:
        given = {"vocab": _vocabulary(name)}
        if name in ("LlamaTokenizer", "GemmaTokenizer", "Qwen2Tokenizer", "GPT2Tokenizer"):
            given["merges"] = []
        tokenizer = getattr(transformers, name)(**given)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": SPECIAL[name]}, replace_extra_special_tokens=False
    )
    wide = AddedToken("<|wide|>", lstrip=True, rstrip=True, normalized=True, special=True)
    lone = AddedToken("<|lone|>", single_word=True, normalized=True)
    tokenizer.add_tokens(["<think>", "<tool_call>", wide, lone])
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def control_ids(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Every added token; the one for unknown words is made by any unknown word."""
    return {
        id: token.content
        for id, token in tokenizer.added_tokens_decoder.items()
        if id != tokenizer.unk_token_id and len(token.content.strip()) > 1
    }
