"""Tokenises segments of text; outside text never produces a special token.

Tokenising a prompt piece by piece would change the merges at segment boundaries. So each stretch is
first tokenised as a whole. Only if a control token does not come from the template are the segments
tokenised one by one, outside text without added tokens.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from latentmas.prompts import Segment

__all__ = ["begin_ids", "outside_ids", "segment_ids"]

Ids = list[int]
Control = Mapping[int, str]

_KNOWN: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, dict[int, str]]] = WeakKeyDictionary()
"""Cache of control tokens, with the tokenizer's size: Gemma has over 6,000 added tokens."""
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def segment_ids(tokenizer: PreTrainedTokenizerBase, segments: Sequence[Segment]) -> Ids:
    """Token ids of adjacent segments, without the tokens that a tokenizer adds at the ends.

    The author's own text may hold special tokens. Outside text is plain text, whatever it says.
    Text without control tokens from outside is tokenised as if it were one string.
    """
    text = "".join(segment.text for segment in segments)
    outside = [segment.text for segment in segments if not segment.own]
    if not outside:
        return _whole(tokenizer, text)
    control = _control_tokens(tokenizer, outside)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
    ids: Ids = encoded.input_ids
    own = {words: _whole(tokenizer, words) for words in {s.text for s in segments if s.own}}
    # Two conditions: the control tokens are exactly those of the template's own text (an adjacent
    # letter may break a token that must stand alone), and each lies within one segment of it, so
    # that outside text cannot replace a lost one.
    found = [id for id in ids if id in control]
    wanted = [id for s in segments if s.own for id in own[s.text] if id in control]
    in_place = not found or not tokenizer.is_fast or _inside(text, segments, encoded, control)
    if found == wanted and in_place:
        return ids
    encode = _encoder(tokenizer)
    parts = [own[s.text] if s.own else _plain(encode, s.text, control) for s in segments]
    return [id for part in parts for id in part]


def outside_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Ids:
    """Token ids of outside text, such as an answer in a data set."""
    return segment_ids(tokenizer, [Segment(text, own=False)])


def begin_ids(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """The tokens that the tokenizer adds at the start of a text, usually one or none."""
    plain, marked = _whole(tokenizer, "a"), list(tokenizer("a").input_ids)
    for at in range(len(marked) - len(plain) + 1):
        if marked[at : at + len(plain)] == plain:
            return marked[:at]
    return []


def _whole(tokenizer: PreTrainedTokenizerBase, text: str) -> Ids:
    ids: Ids = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def _control_tokens(tokenizer: PreTrainedTokenizerBase, outside: Sequence[str]) -> Control:
    """Added tokens that outside text must not produce: id → content.

    Any unknown word produces the unknown token, which counts only if the text spells it out.
    """
    size, found = _KNOWN.get(tokenizer, (-1, {}))
    if size != len(tokenizer):
        added = tokenizer.added_tokens_decoder.items()
        found = {id: t.content for id, t in added if _is_control(t.content, special=t.special)}
        _KNOWN[tokenizer] = len(tokenizer), found
    unknown = tokenizer.unk_token
    if unknown is not None and not any(unknown.casefold() in text.casefold() for text in outside):
        return {id: content for id, content in found.items() if content != unknown}
    return found


def _is_control(content: str, *, special: bool) -> bool:
    """Whether an added token may control a model; white space, characters and words do not.

    Gemma's tokenizer, for example, has runs of line breaks and of spaces (as U+2581) as added
    tokens and recognises them in any text. Other added tokens extend the vocabulary by words, or
    are bytes that spell all other text.
    """
    bare = content.replace("\u2581", " ").strip()
    if len(bare) < 2 or _BYTE.fullmatch(bare):
        return False
    return special or not "".join(bare.split()).isalnum()


def _inside(text: str, segments: Sequence[Segment], encoded: Any, control: Control) -> bool:
    """Whether each control token lies within one segment of the author's own.

    Some tokens absorb adjacent white space, which is ignored.
    """
    begins, ends, at = [], [], 0
    for segment in segments:
        if segment.own:
            begins.append(at)
            ends.append(at + len(segment.text))
        at += len(segment.text)
    for id, (first, last) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
        if id not in control:
            continue
        read = text[first:last]
        first, last = first + len(read) - len(read.lstrip()), first + len(read.rstrip())
        i = bisect_right(begins, first) - 1
        if first >= last or i < 0 or last > ends[i]:
            return False
    return True


def _plain(encode: Callable[[str], Ids], text: str, control: Control) -> Ids:
    """Token ids of a text, without recognising added tokens."""
    ids: Ids = []
    for id in encode(text):
        if id in control:  # also in the base vocabulary: spell it out in smaller tokens
            ids += [
                part for letter in control[id] for part in encode(letter) if part not in control
            ]
        else:
            ids.append(id)
    return ids


def _encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], Ids]:
    """A tokenizer that does not recognise added tokens.

    `split_special_tokens=True` is not enough for a fast tokenizer: it keeps added tokens that are
    not marked as special (`<tool_call>`, `<think>`), and it is a global setting of the tokenizer,
    which another thread may change back before the text is encoded.
    """
    if not tokenizer.is_fast:
        return lambda text: list(
            tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        )
    backend: Any = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    normalizer, pre_tokenizer, model = backend.normalizer, backend.pre_tokenizer, backend.model

    def encode(text: str) -> Ids:
        text = text if normalizer is None else normalizer.normalize_str(text)
        pieces = [text]
        if pre_tokenizer is not None:
            pieces = [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for piece in pieces if piece for token in model.tokenize(piece)]

    return encode
