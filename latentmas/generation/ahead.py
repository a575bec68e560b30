"""Choices that the device makes by itself, so that the host may look at tokens a step later.

Shapes: `B` rows, `S` numbers of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from latentmas.engine import MOST_LIKELY, Chooser
from latentmas.generation.drawing import CANDIDATES, TopCandidates
from latentmas.generation.rows import GeneratedSequence
from latentmas.generation.sampling import Sampling

__all__ = ["begin_reading", "choice_numbers", "chooser_for"]


def chooser_for(settings: Iterable[Sampling]) -> Chooser | None:
    """How a captured step chooses for rows with these settings.

    All of them take the most likely token, or all draw with a `top_k` of at most `CANDIDATES`, each
    with its own temperature and filters.

    Returns:
        None where the host takes part in the choice: with a repetition penalty, for draws without
        a `top_k` or with a larger one, and where some rows draw and others do not.
    """
    known, largest = set(settings), list[int]()
    for sampling in known:
        if sampling.repetition_penalty != 1.0:
            return None
        if sampling.do_sample:
            largest.append(sampling.top_k or CANDIDATES + 1)
    if not largest:
        return MOST_LIKELY
    if len(largest) < len(known) or max(largest) > CANDIDATES:
        return None
    return TopCandidates.of(max(largest))


def choice_numbers(
    rows: Sequence[GeneratedSequence], settings: Sequence[Sampling], device: torch.device
) -> Tensor:
    """What `TopCandidates` reads for the next choice of each row, on the host, (B, S).

    Each row draws its random number, and keeps it until the choice is known to count.

    Args:
        rows: The rows.
        settings: Sampling settings of each row.
        device: Device that will read them.
    """
    numbers = [
        TopCandidates.numbers(row.draw_early(), sampling.temperature, sampling.filters)
        for row, sampling in zip(rows, settings, strict=True)
    ]
    pinned = device.type == "cuda"  # else the host would wait for the device to have them
    return torch.tensor(numbers, dtype=torch.float64, pin_memory=pinned)


def begin_reading(ids_B: Tensor) -> Callable[[], list[int]]:
    """Begin to copy ids to the host; what is returned waits for them, and for nothing later."""
    if ids_B.device.type != "cuda":
        return ids_B.clone().tolist
    host_B = torch.empty(ids_B.shape, dtype=ids_B.dtype, pin_memory=True)
    host_B.copy_(ids_B, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(ids_B.device))

    def read() -> list[int]:
        copied.synchronize()
        tokens: list[int] = host_B.tolist()
        return tokens

    return read
