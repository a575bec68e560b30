"""What tests of steps that are captured whole share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import latentmas as lm
from latentmas.engine.sessions.static import StaticSession
from latentmas.generation import GenerationBatch

__all__ = ["count_ahead", "end_unequally", "ends"]


def count_ahead(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each step from now on that chooses its tokens on the device."""
    seen: list[int] = []
    plain = StaticSession.write_ahead

    def write(feed: StaticSession, ids_B: torch.Tensor, *choice: Any) -> Any:
        seen.append(len(ids_B))
        return plain(feed, ids_B, *choice)

    monkeypatch.setattr(StaticSession, "write_ahead", write)
    return seen


def end_unequally(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each row write its own tokens, and end after 4 to 20 of them, as its stream decides."""
    plain = GenerationBatch._settle

    def settle(batch: Any, chosen: dict[int, int]) -> None:
        end, rows = min(batch._backbone.stop_ids), batch._rows
        lengths = {i: 4 + rows[i].stream.initial_seed() % 17 for i in chosen}
        plain(batch, {i: end if len(rows[i].ids) >= lengths[i] else chosen[i] for i in chosen})

    monkeypatch.setattr(GenerationBatch, "_settle", settle)


def ends(result: lm.RunResult) -> tuple[Any, ...]:
    """What a run has written, and why it ended."""
    return result.sequence_ids, result.texts, result.finish_reasons
