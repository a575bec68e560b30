"""What the rows of a batch are to write, and one row's text as it grows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from latentmas.generation.controllers import Continuation, GenerationController
from latentmas.generation.sampling import Sampling

__all__ = ["FinishReason", "GeneratedSequence", "GenerationRequest"]

FinishReason = Literal["stop", "length", "tool_limit"]
"""`stop`: the model ended its turn, or wrote a stop string. `length`: a limit of tokens, or the end
of the context."""


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """What the rows of one batch are to write; its rows are those of prompts and times."""

    num_return_sequences: int = 1
    """How many texts follow each prompt, which is read once."""
    max_new_tokens: Sequence[int]
    """Maximum number of tokens that each row chooses; those of a controller are not counted."""
    context_left: Sequence[int | None]
    """Number of tokens that fit into each row's context after its prompt; None for no limit."""
    streams: Sequence[str]
    """Names of the rows' random streams."""
    sampling: Sampling | None = None
    """How these rows choose tokens; None: as the batch does."""
    controller: GenerationController = field(default_factory=GenerationController)
    on_token: Callable[[int, int], None] = lambda row, token: None
    """Called with (row, token id) for each token, chosen or not."""


@dataclass(eq=False)
class GeneratedSequence:
    """One row's text, as it grows."""

    request: GenerationRequest
    index: int
    """Which row of its writing it is."""
    stream: torch.Generator
    """Where its random numbers come from."""
    max_new_tokens: int
    context_left: int | None
    ids: list[int] = field(default_factory=list)
    """Tokens so far, without the end token."""
    chosen: int = 0
    """How many of them the row chose itself."""
    waiting: deque[int] = field(default_factory=deque)
    """Tokens that are in `ids` and not yet fed."""
    open: bool = True
    finish: FinishReason = "stop"
    """Why it has ended."""
    early: float | None = None
    """Random number of its next choice, where that has been drawn."""
    seconds: float = 0.0
    """The row's share of the time that the batch's steps took."""

    def add(self, tokens: Sequence[int]) -> None:
        """Append tokens, to be fed."""
        self.ids.extend(tokens)
        self.waiting.extend(tokens)

    @property
    def ready(self) -> bool:
        """Whether it is to choose a token now."""
        return self.open and not self.waiting

    @property
    def last(self) -> bool:
        """Whether the token that it chooses now is the last one that it may choose."""
        return self.chosen + 1 >= self.max_new_tokens or (
            self.context_left is not None and len(self.ids) + 1 >= self.context_left
        )

    @property
    def spent(self) -> bool:
        """Whether it may choose no further token."""
        return self.chosen >= self.max_new_tokens or (
            self.context_left is not None and len(self.ids) >= self.context_left
        )

    def draw(self) -> float:
        """The random number of its next choice, which is made now."""
        number, self.early = self.draw_early(), None
        return number

    def draw_early(self) -> float:
        """The random number of its next choice, which may yet be made again."""
        if self.early is None:
            self.early = float(torch.rand((), generator=self.stream))
        return self.early

    def end(self) -> None:
        """End the row here, whatever its controller would do: nobody wants its text any more."""
        self.open = False

    def lead(self, continuation: Continuation) -> None:
        """Go on with tokens that it did not choose, or end where its context has no room."""
        self.open = self._take(continuation)
        if not self.open:
            self.finish = "length"

    def _take(self, continuation: Continuation) -> bool:
        if (
            self.context_left is not None
            and len(self.ids) + len(continuation.tokens) >= self.context_left
        ):
            return False
        self.add(continuation.tokens)
        for token in continuation.tokens:
            self.request.on_token(self.index, token)
        if continuation.max_new_tokens is not None:
            self.max_new_tokens = self.chosen + continuation.max_new_tokens
        return True
