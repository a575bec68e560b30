"""How long prompts are: stand-ins for tokenizers, and for the values that prompts read.

The runtime renders and tokenises them as it does real prompts. A value that is not known is a mark:
a number and the tokens that it stands for, between characters of the private use area.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import count
from math import ceil
from types import SimpleNamespace
from typing import Any

from latentmas.errors import DataError

__all__ = ["EstimatingTokenizer", "Field", "WritingTokenizer", "mark"]

SCAFFOLD = 5
"""Tokens that a chat template puts round a turn: a guess that fits most models."""
BITS = (1 << 62) - 1
_MARK = re.compile("\ue000([0-9]+):([0-9]+)\ue001")
_NUMBERS = count()


def mark(tokens: int) -> str:
    """A text like no other that stands for so many tokens."""
    return f"\ue000{next(_NUMBERS)}:{tokens}\ue001"


class Field(str):
    """A mark for a sample field: text that also answers `field.name`, `field[0]` and loops."""

    def __getattr__(self, name: str) -> Field:
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: object) -> Field:
        return self

    def __iter__(self) -> Any:
        return iter([self])


class EstimatingTokenizer:
    """Tokens of a fixed number of characters; equal ids where texts begin alike."""

    chat_template = (
        "{% for message in messages %}<\ue002{{ message.role }}\ue003>{{ message.content }}"
        "{% endfor %}<\ue002assistant\ue003>"
    )
    special_tokens_map: dict[str, str] = {}  # noqa: RUF012
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012
    unk_token = None
    is_fast = False
    _pieces = re.compile("(\ue000[0-9]+:[0-9]+\ue001|<\ue002\\w+\ue003>)")

    def __init__(self, characters_per_token: float) -> None:
        self.characters_per_token = characters_per_token

    def __len__(self) -> int:
        return 1

    def get_chat_template(self, *_: object) -> str:
        """A turn's role, and its content."""
        return self.chat_template

    def decode(self, ids: Sequence[int], **_: object) -> str:
        """A mark of as many tokens."""
        return mark(len(ids))

    def __call__(self, text: str, **_: object) -> SimpleNamespace:
        """Ids of a text, as `input_ids`.

        Raises:
            DataError: a filter or a loop has taken a mark apart.
        """
        ids: list[int] = []
        for piece in self._pieces.split(text):
            if found := _MARK.fullmatch(piece):
                ids += [hash((found[1], i)) & BITS for i in range(int(found[2]))]
            elif piece.startswith("<\ue002"):
                ids += [hash((piece, i)) & BITS for i in range(SCAFFOLD)]
            elif "\ue000" in piece or "\ue001" in piece:
                raise DataError("a prompt depends on what its fields hold")
            else:
                ids += self._text(piece)
        return SimpleNamespace(input_ids=ids)

    def _text(self, text: str) -> Iterator[int]:
        """An id says what the text is up to its token's end; so equal ones begin a text alike."""
        begin, id = 0, 0
        for number in range(ceil(len(text) / self.characters_per_token)):
            end = ceil((number + 1) * self.characters_per_token)
            id = hash((id, text[begin:end])) & BITS
            begin = end
            yield id


class WritingTokenizer:
    """A real tokenizer that decodes to as many words as there are ids, since nothing is written."""

    def __init__(self, tokenizer: Any) -> None:
        self._real = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __len__(self) -> int:
        return len(self._real)

    def __call__(self, text: str, **options: Any) -> Any:
        """As the real one's."""
        return self._real(text, **options)

    def decode(self, ids: Sequence[int], **_: object) -> str:
        """Words of one token each, others than in the text before."""
        word = " " + chr(ord("a") + next(_NUMBERS) % 26)
        alone = len(self._real(word * 8, add_special_tokens=False).input_ids) == 8
        return (word if alone else word[1:]) * len(ids)
