"""How the next token is chosen, row by row.

Shapes: `B` batch, `V` vocabulary.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from latentmas.generation.drawing import Filters, draw
from latentmas.plan import DEFAULT_MAX_NEW_TOKENS, RunOptions

__all__ = ["Sampling", "pick", "random_stream"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen: options that `RunOptions` has checked, with its meanings."""

    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    """Maximum number of tokens of an agent whose step sets no limit."""
    do_sample: bool = False
    """False: the most likely token. True: draw."""
    temperature: float = 1.0
    top_p: float = 1.0
    """Draw from the smallest set of tokens with at least this probability."""
    top_k: int | None = None
    """Draw from this many likeliest tokens."""
    min_p: float | None = None
    """Draw from tokens at least this likely, relative to the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1: tokens that the row has written already become less likely (drawn or not)."""
    stop: tuple[str, ...] = ()
    """Strings that end a text; they are not part of it."""
    seed: int | tuple[int, ...] = 0
    """Random seed. Each row has its own random stream, so that a batch gives the same texts as its
    rows alone; a sequence has one seed for each sample."""

    @classmethod
    def of(cls, options: RunOptions) -> Sampling:
        """The part of a run's options that chooses tokens; `max_new_tokens` stands in the plan."""
        own = {field.name for field in fields(cls)} - {"max_new_tokens"}
        return cls(**{name: getattr(options, name) for name in own})

    @property
    def filters(self) -> Filters:
        """Tokens to draw from."""
        return Filters(self.top_k, self.top_p, self.min_p)

    def stream(self, sample: int, turn: str, sequence: int = 0) -> str:
        """Name of the stream that a row draws from.

        Args:
            sample: number of the sample in the run.
            turn: agent and round.
            sequence: number of the answer, where one sample gets several.
        """
        own = isinstance(self.seed, tuple)
        start = str(self.seed[sample]) if isinstance(self.seed, tuple) else f"{self.seed}"
        parts = [start, turn] if own else [start, turn, str(sample)]
        return "/".join([*parts, *([f"sequence {sequence}"] if sequence else [])])


def random_stream(name: str) -> torch.Generator:
    """The random numbers of a row, by the name of its stream; on the CPU, whatever the device."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


def pick(logits_BV: Tensor, sampling: Sampling, uniform_B: Tensor | None) -> Tensor:
    """Choose a token for each row.

    Args:
        logits_BV: Scores, after the repetition penalty.
        sampling: How tokens are chosen.
        uniform_B: One number from [0, 1) for each row, when sampling.

    Returns:
        Token ids, (B,).
    """
    if not sampling.do_sample or uniform_B is None:
        return logits_BV.max(dim=-1).indices  # the first of several; faster than argmax on CPUs
    return draw(logits_BV.detach(), sampling.temperature, sampling.filters, uniform_B)
