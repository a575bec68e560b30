"""Maps each token of one vocabulary to the tokens of another that spell the same text.

A token's text is encoded with the other tokenizer; end-of-turn tokens are mapped to each other.
The table is built once per pair of vocabularies and cached on disk.

Shapes: `V` tokens of the sender, `N` pieces in all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentmas.cache import cache_folder
from latentmas.redact import get_logger

__all__ = ["Pieces", "find_pieces", "same_vocabulary"]

log = get_logger("latentmas.links")
VERSION = 1
"""Version of the rules below; changing it invalidates cached tables."""
ANCHOR = "\n"
"""Prefix encoded with each text, then removed: tokenizers treat the start of a text specially."""
SPACE = "\u2581"
"""The character that SentencePiece vocabularies use for a space."""


class Pieces(NamedTuple):
    """For each token of the sender, the receiver's tokens with the same text."""

    counts_V: Tensor
    """Number of pieces per token; 0 if there is no equivalent."""
    ids_N: Tensor
    """The pieces of all tokens, concatenated."""
    digest: str


def same_vocabulary(source: Any, target: Any) -> bool:
    """Whether two tokenizers assign the same ids to the same tokens."""
    return source is target or bool(source.get_vocab() == target.get_vocab())


def find_pieces(source: Any, target: Any, ends: Mapping[int, int]) -> Pieces:
    """The pieces for a pair of tokenizers, from the disk cache if available.

    Args:
        source: The sender's tokenizer.
        target: The receiver's tokenizer.
        ends: End-of-turn tokens of the sender → those of the receiver.
    """
    digest = _digest(source, target, ends)
    try:
        path = cache_folder() / "pieces" / f"{digest}.safetensors"
        if path.exists():
            return _read(path, digest)
    except (OSError, RuntimeError, SafetensorError, KeyError, ValueError) as error:
        log.warning("the cached token table %s cannot be read and is rebuilt: %s", digest, error)
    pieces = _build(source, target, ends, digest)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        save_file({"counts": pieces.counts_V, "ids": pieces.ids_N}, part)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        log.info("the token table %s is not cached: %s", digest, error)
    return pieces


def _digest(source: Any, target: Any, ends: Mapping[int, int]) -> str:
    content = [VERSION, sorted(ends.items())]
    for tokenizer in (source, target):
        added = {int(i): str(token) for i, token in tokenizer.added_tokens_decoder.items()}
        content += [sorted(tokenizer.get_vocab().items()), sorted(added.items())]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _read(path: Path, digest: str) -> Pieces:
    tensors = load_file(path)
    counts_V, ids_N = tensors["counts"], tensors["ids"]
    if counts_V.dim() != 1 or ids_N.dim() != 1 or int(counts_V.sum()) != len(ids_N):
        raise ValueError("its counts do not fit its ids")
    return Pieces(counts_V, ids_N, digest)


def _build(source: Any, target: Any, ends: Mapping[int, int], digest: str) -> Pieces:
    vocabulary = {id: token for token, id in source.get_vocab().items()}
    found = dict[int, list[int]]()
    texts = dict[int, str]()
    known, special = target.get_vocab(), set(source.all_special_ids)
    spelling, others = _Spelling(source), _Spelling(target)
    for id, token in vocabulary.items():
        if id in ends:
            found[id] = [ends[id]]
        elif id in special:
            found[id] = [known[token]] if token in known else []
        elif spelling.kind == others.kind and token in known and id not in spelling.added:
            found[id] = [known[token]]
        elif (content := spelling.content(id, token)) is not None:
            try:
                texts[id] = content.decode()
            except UnicodeDecodeError:  # the token is only part of a multi-byte character
                found[id] = others.of_bytes(content, known)
    found |= dict(zip(texts, _encoded(target, list(texts.values())), strict=True))
    size = 1 + max(vocabulary)
    counts_V = torch.tensor([len(found.get(id, ())) for id in range(size)], dtype=torch.int32)
    flat = [piece for id in range(size) for piece in found.get(id, ())]
    return Pieces(counts_V, torch.tensor(flat, dtype=torch.int32), digest)


def _encoded(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts as encoded inside a longer text; special tokens count as plain text."""
    if not texts:
        return []
    options = {"add_special_tokens": False, "split_special_tokens": True}
    anchor: list[int] = tokenizer(ANCHOR, **options).input_ids
    anchored = tokenizer([ANCHOR + text for text in texts], **options).input_ids
    plain = tokenizer(list(texts), **options).input_ids
    return [
        whole[len(anchor) :] if whole[: len(anchor)] == anchor else alone
        for whole, alone in zip(anchored, plain, strict=True)
    ]


class _Spelling:
    """How a vocabulary spells its tokens: byte-level (GPT-2), `▁` for a space, or plain text."""

    def __init__(self, tokenizer: Any) -> None:
        vocabulary = tokenizer.get_vocab()
        self.added = {int(id): str(token) for id, token in tokenizer.added_tokens_decoder.items()}
        self.kind = "plain"
        if "\u0120" in vocabulary or "\u010a" in vocabulary:
            self.kind = "bytes"
        elif SPACE in vocabulary or any(token.startswith(SPACE) for token in vocabulary):
            self.kind = "sentencepiece"

    def content(self, id: int, token: str) -> bytes | None:
        """The bytes that a token stands for; None if unknown."""
        if id in self.added:
            return self.added[id].encode()
        if self.kind == "bytes":
            letters = _letters()
            known = all(letter in letters for letter in token)
            return bytes(letters[letter] for letter in token) if known else None
        if self.kind == "sentencepiece":
            if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                return bytes([int(token[3:5], 16)])
            return token.replace(SPACE, " ").encode()
        return token.encode()

    def of_bytes(self, content: bytes, known: Mapping[str, int]) -> list[int]:
        """Byte tokens for incomplete characters; empty if the vocabulary has none."""
        names = [f"<0x{byte:02X}>" for byte in content]
        if self.kind == "bytes":
            of_byte = {byte: letter for letter, byte in _letters().items()}
            names = [of_byte[byte] for byte in content]
            if (whole := "".join(names)) in known:
                return [known[whole]]
        return [known[name] for name in names if name in known]


@lru_cache(maxsize=1)
def _letters() -> dict[str, int]:
    """The character that byte-level vocabularies use for each byte (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}
