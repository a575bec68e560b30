"""An executor whose agents write what a script says, over a real model's real cache.

Every token is fed to the model as ever; only the scores are the script's. A row's script is found
by a word of its prompt, and is followed as far as the row's own text has come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentmas.backbones import LoadedBackbone
from latentmas.engine.executors import executors
from latentmas.engine.executors._base import Executor
from latentmas.engine.sessions._base import DecoderSession
from latentmas.engine.sessions.cached import CachedSession
from latentmas.engine.sessions.recomputed import RecomputedSession

Script = Callable[[str], str]
"""Takes the text that a row has so far (tools' results among it), returns what it writes next."""


def says(*parts: str) -> Script:
    """Write the parts in turn, each after another result."""

    def next_text(text: str) -> str:
        done = text.count("</result>")
        return parts[min(done, len(parts) - 1)]

    return next_text


class _Backbone:
    """A backbone that scores by script."""

    def __init__(self, inner: LoadedBackbone, feed: _Feed, scripts: Mapping[str, Script]) -> None:
        self._inner, self._feed, self._scripts = inner, feed, scripts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def logits(self, h_BD: Tensor) -> Tensor:
        scores = self._inner.logits(h_BD).clone()
        self._feed.scores.append(scores.clone())
        for row, history in enumerate(self._feed.histories()):
            scores[row, self._token(*history)] = 1e4
        return scores

    def _token(self, prompt: str, ids: list[int]) -> int:
        """The tokenizer is one of bytes, so that places in texts and in tokens agree."""
        tokenizer = self._inner.tokenizer
        script = next((s for word, s in self._scripts.items() if word in prompt), says(""))
        written = tokenizer.decode(ids)
        whole = written.rstrip("\ufffd")
        begun = self._begun(ids)
        target = script(whole)
        own = whole.rpartition("</result>")[2].lstrip(" ") if "</result>" in whole else whole
        rest = target[len(own) :] if target.startswith(own) else ""
        tokens = [*tokenizer(rest, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        return int(tokens[begun])

    def _begun(self, ids: list[int]) -> int:
        """Bytes at the end that are not yet a character."""
        decode = self._inner.tokenizer.decode
        return next(n for n in range(5) if not decode(ids[: len(ids) - n]).endswith("\ufffd"))


class _Feed(DecoderSession):
    """Remembers what it was fed."""

    def __init__(
        self,
        inner: DecoderSession,
        backbone: LoadedBackbone,
        scripts: Mapping[str, Script],
        scores: Any,
    ) -> None:
        self._inner, self.scores = inner, scores
        self._table = backbone.embed(torch.arange(len(backbone.tokenizer)))
        self._fed: list[list[list[int]]] = []
        self.backbone = _Backbone(backbone, self, scripts)  # type: ignore[assignment]

    def feed(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        ids_BT = torch.cdist(x_BTD.float(), self._table.float()[None]).argmin(-1)
        real_BT = torch.ones_like(ids_BT) if mask_BT is None else mask_BT
        self._fed.append(
            [row[mask.bool()].tolist() for row, mask in zip(ids_BT, real_BT, strict=True)]
        )
        return self._inner.feed(x_BTD, mask_BT)

    def select(self, rows: Sequence[int]) -> None:
        self._fed = [[piece[row] for row in rows] for piece in self._fed]
        self._inner.select(rows)

    def join(self, other: DecoderSession) -> None:
        raise AssertionError("scripts are followed one batch after another")

    def can_merge(self) -> bool:
        return False

    def histories(self) -> Iterator[tuple[str, list[int]]]:
        first, *rest = self._fed
        for row, prompt in enumerate(first):
            text = self.backbone.tokenizer.decode(prompt)
            yield text, [token for piece in rest for token in piece[row]]


@contextmanager
def scripted(scripts: Mapping[str, Script], *, recompute: bool = False) -> Iterator[str]:
    """The name of an executor that follows the scripts, while the block runs."""
    kind = RecomputedSession if recompute else CachedSession

    class Scripted(Executor):
        scores: ClassVar[list[Tensor]] = []

        def session(self, backbone: LoadedBackbone) -> DecoderSession:
            inner = kind(backbone, self.position_mode)
            return _Feed(inner, backbone, scripts, self.scores)

    executors._entries["scripted"] = Scripted
    try:
        yield "scripted"
    finally:
        del executors._entries["scripted"]
