"""What may happen to a text while it is written: stop strings, retries, tool calls.

A controller watches rows token by token. It may end a row, or let it go on with tokens that the row
did not choose: they are fed like written ones, at the row's own place, so that no other row
notices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

__all__ = [
    "RETRIES",
    "Continuation",
    "Retry",
    "RetryController",
    "GenerationController",
    "StopStrings",
    "ChainedControllers",
]

Rows = Mapping[int, Sequence[int]]
"""Row → the token ids it has so far."""


class Continuation(NamedTuple):
    """How a row goes on."""

    tokens: Sequence[int] = ()
    """Fed next, as if the row had written them."""
    max_new_tokens: int | None = None
    """Maximum number of tokens that it may choose from now on; None leaves the limit as it is."""
    end: bool = False
    """End the row here."""


class GenerationController:
    """Interface; by default nothing happens."""

    only_ends = False
    """Whether it may end rows and never lets one go on: then a row's next token may be fed before
    it is asked."""

    def after_tokens(self, rows: Rows) -> dict[int, Continuation]:
        """Called with the rows that have just written a token."""
        return {}

    def at_end(self, rows: Rows) -> dict[int, Continuation]:
        """Called with the rows that have just ended; those named go on."""
        return {}

    def text(self, row: int, text: str) -> str:
        """The row's text in the end."""
        return text


class ChainedControllers(GenerationController):
    """Several controllers; if two of them act on one row, the first one applies."""

    def __init__(self, parts: Sequence[GenerationController]) -> None:
        self.parts = list(parts)
        self.only_ends = all(part.only_ends for part in self.parts)

    def after_tokens(self, rows: Rows) -> dict[int, Continuation]:
        """What the parts say."""
        said: dict[int, Continuation] = {}
        for part in self.parts:
            said = part.after_tokens({r: ids for r, ids in rows.items() if r not in said}) | said
        return said

    def at_end(self, rows: Rows) -> dict[int, Continuation]:
        """What the parts say."""
        said: dict[int, Continuation] = {}
        for part in self.parts:
            said = part.at_end({r: ids for r, ids in rows.items() if r not in said}) | said
        return said

    def text(self, row: int, text: str) -> str:
        """What the parts make of it, in turn."""
        for part in self.parts:
            text = part.text(row, text)
        return text


class StopStrings(GenerationController):
    """Ends a row whose text holds one of some strings, and cuts the text before it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: Sequence[str]) -> None:
        self.only_ends = True
        self._tokenizer, self._strings = tokenizer, strings
        self._tail = max(len(string.encode()) for string in strings) + 4
        self._found: dict[int, str] = {}
        self._seen: dict[int, int] = {}
        """Tokens of each row when it was last looked at."""
        self._own: dict[int, int] = {}
        """Where the tokens begin that each row has chosen in one go, after what it was given."""

    def after_tokens(self, rows: Rows) -> dict[int, Continuation]:
        """End the rows that have just completed a string; a token has a byte at least.

        What a row did not choose itself, such as a tool's result, ends nothing.
        """
        said = {}
        for row, ids in rows.items():
            count = len(ids)
            if count > self._seen.get(row, 0) + 1:
                self._own[row] = count - 1
            self._seen[row] = count
            self._found.pop(row, None)  # it has gone on
            first = max(self._own.get(row, 0), count - self._tail)
            tail = str(self._tokenizer.decode(list(ids[first:]), skip_special_tokens=True))
            found = [string for string in self._strings if string in tail]
            if found:
                self._found[row] = min(found, key=tail.index)
                said[row] = Continuation(end=True)
        return said

    def text(self, row: int, text: str) -> str:
        """The text before the string."""
        string = self._found.get(row)
        return text if string is None else text[: text.rindex(string)]


class Retry(NamedTuple):
    """One retry for a text without an answer: a cue is appended, and the text continues from it.

    The row continues where it stopped: it still sees its prompt, its messages and its own text.
    """

    has_answer: Callable[[str], bool]
    """Function that says whether a text contains an answer."""
    cue: str
    """Added to the text, as its own words."""
    max_new_tokens: int
    """Maximum number of tokens of the continuation."""


def _has(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.search(pattern, text) is not None


RETRIES: dict[str, Retry] = {
    "math": Retry(_has(r"\\boxed\s*\{"), "\nFinal answer: \\boxed{", 16),
    "choice": Retry(_has(r"\\boxed\s*\{"), "\nFinal choice: \\boxed{", 16),
    "search": Retry(_has(r"\\boxed\s*\{"), "\nFinal answer: \\boxed{", 32),
    "code": Retry(_has(r"```(python|py)?\s*\n"), "\nFinal program:\n```python\n", 256),
}
"""Retries by kind of task, as `RunOptions.retry` names them."""


class RetryController(GenerationController):
    """Leads ended rows without an answer to one, once each."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, retry: Retry) -> None:
        self._tokenizer, self._retry = tokenizer, retry
        self._cue = tokenizer(retry.cue, add_special_tokens=False).input_ids
        self.retried: set[int] = set()

    def at_end(self, rows: Rows) -> dict[int, Continuation]:
        """Go on with the cue where there is no answer yet."""
        said = {}
        for row, ids in rows.items():
            text = str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
            if row not in self.retried and not self._retry.has_answer(text):
                self.retried.add(row)
                said[row] = Continuation(self._cue, max_new_tokens=self._retry.max_new_tokens)
        return said
