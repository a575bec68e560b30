"""Text as it is written: whole characters, per answer, from the events of a run."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from latentmas.arguments import function
from latentmas.errors import LatentMASError
from latentmas.runtime.observing.events import Event, RunEnd, Token

if TYPE_CHECKING:
    from latentmas.runtime.samples import Sample
    from latentmas.runtime.system import System

__all__ = ["OnText", "TextWatcher", "stream"]

OnText = Callable[[int, str], None]
"""Takes the number of a sample and the text that has been added to its (first) answer."""

UNFINISHED = "\ufffd"
"""What a decoder writes for a character whose bytes are not all there."""


class _Row:
    """One answer. Tokens are decoded with a few before them, which settles their spaces."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode, self._ids = decode, list[int]()
        self._context, self._read = 0, 0

    def add(self, token: int) -> str:
        """The text that the token completes."""
        self._ids.append(token)
        before = self._decode(self._ids[self._context : self._read])
        now = self._decode(self._ids[self._context :])
        if now.endswith(UNFINISHED) or len(now) <= len(before):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return now[len(before) :]

    def rest(self) -> str:
        """Text of tokens that never became whole characters."""
        before = self._decode(self._ids[self._context : self._read])
        return self._decode(self._ids[self._context :])[len(before) :]


class TextWatcher:
    """Turns the tokens of a run into pieces of text; text that may be a stop string waits."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, on_text: OnText, stop: tuple[str, ...] = ()
    ) -> None:
        function("on_text", on_text)
        self._tokenizer, self._on_text, self._stop = tokenizer, on_text, stop
        self._rows: dict[int, _Row] = {}
        self._held: dict[int, str] = {}

    def __call__(self, event: Event) -> None:
        """Take in an event of the run."""
        if isinstance(event, Token) and event.sequence == 0:
            row = self._rows.setdefault(event.sample, _Row(self._text))
            self._say(event.sample, row.add(event.token_id))
        elif isinstance(event, RunEnd) and event.error is None:
            for sample, row in self._rows.items():
                self._say(sample, row.rest(), last=True)

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _say(self, sample: int, text: str, *, last: bool = False) -> None:
        held = self._held.pop(sample, "")
        before = "" if last or self._cut(held) is None else held  # the row has gone on after it
        text = held[len(before) :] + text
        cut = self._cut(text)
        if last:
            said, held = text if cut is None else text[:cut], ""
        else:
            longest = max(map(len, self._stop), default=1) - 1
            place = max(0, len(text) - longest) if cut is None else cut
            said, held = before + text[:place], text[place:]
        if held:
            self._held[sample] = held
        if said:
            try:
                self._on_text(sample, said)
            except Exception as error:
                raise LatentMASError(
                    f"on_text, sample {sample}: {type(error).__name__}: {error}"
                ) from error

    def _cut(self, text: str) -> int | None:
        """Where the first stop string begins."""
        return min((text.index(string) for string in self._stop if string in text), default=None)


class _ClosedError(Exception):
    """Whoever read the stream has gone."""


def stream(system: System, sample: Sample, **options: Any) -> Iterator[str]:
    """Run one sample in a thread and hand out its answer piece by piece.

    Closing the iterator ends the run. Options as `System.run`.
    """
    pieces: queue.Queue[str | BaseException | None] = queue.Queue()
    closed = threading.Event()

    def on_text(_: int, text: str) -> None:
        if closed.is_set():
            raise _ClosedError
        pieces.put(text)

    def work() -> None:
        try:
            system.run([sample], on_text=on_text, **options)
            pieces.put(None)
        except BaseException as error:
            pieces.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        closed.set()
        thread.join()
