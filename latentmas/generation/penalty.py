"""The repetition penalty, without going through histories or the vocabulary at each step.

Shapes: `B` rows, `V` vocabulary, `N` pairs of a row and a token that it has written.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["WrittenTokens"]

FIRST_CAPACITY = 1024


class WrittenTokens:
    """The distinct tokens that each row of a batch has written.

    A step adds the newest tokens and changes the scores of written tokens alone.
    """

    def __init__(self) -> None:
        """Without rows."""
        self._known: list[set[int]] = []
        self._pairs_2N = torch.empty(2, 0, dtype=torch.long)
        self._count = 0

    def add_rows(self, count: int) -> None:
        """Append rows that have written nothing.

        Args:
            count: Number of rows.
        """
        self._known += [set() for _ in range(count)]

    def select(self, kept: Sequence[int]) -> None:
        """Keep some rows, in a given order.

        Args:
            kept: Indices of the rows.
        """
        known, self._known, self._count = self._known, [], 0
        self.add_rows(len(kept))
        self.write([(i, known[old]) for i, old in enumerate(kept)])

    def write(self, tokens: Sequence[tuple[int, Sequence[int] | set[int]]]) -> None:
        """Note what rows have written.

        Args:
            tokens: Pairs of a row and its tokens; known ones may be among them.
        """
        new = list[tuple[int, int]]()
        for row, ids in tokens:
            fresh = set(ids) - self._known[row]
            self._known[row] |= fresh
            new += [(row, token) for token in sorted(fresh)]
        if new:
            self._reserve(self._count + len(new))
            end = self._count + len(new)
            self._pairs_2N[:, self._count : end] = torch.tensor(new).T
            self._count = end

    def penalise(self, logits_BV: Tensor, penalties: Sequence[float]) -> None:
        """Make written tokens less likely, in place.

        Args:
            logits_BV: Scores; positive ones are divided by the penalty of their row, negative ones
                multiplied.
            penalties: Repetition penalty of each row; 1 changes nothing.
        """
        if self._pairs_2N.device != logits_BV.device:
            self._pairs_2N = self._pairs_2N.to(logits_BV.device)
        rows_N, ids_N = self._pairs_2N[:, : self._count]
        places_N = rows_N * logits_BV.shape[-1] + ids_N
        own_N = logits_BV.take(places_N)
        exact = torch.promote_types(own_N.dtype, torch.float32)
        penalty_N = torch.tensor(penalties, dtype=exact).to(own_N.device)[rows_N]
        changed_N = torch.where(own_N < 0, own_N * penalty_N, own_N / penalty_N)
        logits_BV.put_(places_N, changed_N.to(own_N.dtype))

    def _reserve(self, count: int) -> None:
        """Make room, by doubling, so that each pair is copied a bounded number of times."""
        capacity = self._pairs_2N.shape[1]
        if count > capacity:
            room = self._pairs_2N.new_empty(2, max(count, 2 * capacity, FIRST_CAPACITY))
            room[:, : self._count] = self._pairs_2N[:, : self._count]
            self._pairs_2N = room
