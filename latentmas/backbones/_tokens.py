"""From segments of text to token ids: outside text never makes a special token.

Tokenising a prompt piece by piece would change the merges at the borders of the pieces. So each
stretch is tokenised whole first, and only where control tokens come from other places than the
template are its segments tokenised one by one, outside text without any added token.
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
"""Control tokens of each tokenizer, with its size then: Gemma's has over 6,000 added tokens."""
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
    # Two conditions. The control tokens are those of the template's own text, none added and none
    # lost (a neighbouring letter may undo a token that must stand alone); and each lies in one
    # stretch of it, so that no outside text can take a lost one's part.
    found = [id for id in ids if id in control]
    wanted = [id for s in segments if s.own for id in own[s.text] if id in control]
    in_place = not found or not tokenizer.is_fast or _inside(text, segments, encoded, control)
    if found == wanted and in_place:
        return ids
    encode = _encoder(tokenizer)
    parts = [own[s.text] if s.own else _plain(encode, s.text, control) for s in segments]
    return [id for part in parts for id in part]


def outside_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Ids:
    """Token ids of text from outside, such as an answer in a data set."""
    return segment_ids(tokenizer, [Segment(text, own=False)])


def begin_ids(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """The tokens that the tokenizer puts at the beginning of a text, as a rule one or none."""
    plain, marked = _whole(tokenizer, "a"), list(tokenizer("a").input_ids)
    for at in range(len(marked) - len(plain) + 1):
        if marked[at : at + len(plain)] == plain:
            return marked[:at]
    return []


def _whole(tokenizer: PreTrainedTokenizerBase, text: str) -> Ids:
    ids: Ids = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def _control_tokens(tokenizer: PreTrainedTokenizerBase, outside: Sequence[str]) -> Control:
    """Added tokens that outside text must not make, id → content.

    The token for unknown words is made from any unknown word; it counts where the text spells it.
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
    """Whether an added token may steer a model; white space, characters and words cannot.

    Gemma's tokenizer, for one, has runs of line breaks and of spaces (as U+2581) as added tokens,
    and reads them in any text. Words are added to extend a vocabulary, bytes to spell the rest.
    """
    bare = content.replace("\u2581", " ").strip()
    if len(bare) < 2 or _BYTE.fullmatch(bare):
        return False
    return special or not "".join(bare.split()).isalnum()


def _inside(text: str, segments: Sequence[Segment], encoded: Any, control: Control) -> bool:
    """Whether each control token lies in one segment of the author's own.

    Some tokens take the white space beside them with them, which does not count.
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
    """Ids of a text in which nothing is looked up as an added token."""
    ids: Ids = []
    for id in encode(text):
        if id in control:  # it is in the model's own vocabulary too: spell it out
            ids += [
                part for letter in control[id] for part in encode(letter) if part not in control
            ]
        else:
            ids.append(id)
    return ids


def _encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], Ids]:
    """What tokenises without added tokens.

    `split_special_tokens=True` is not enough for a fast tokenizer: it keeps added tokens that are
    not marked as special (`<tool_call>`, `<think>`), and it is a switch of the whole tokenizer,
    which another thread may turn back before the text is read.
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
