"""How a step chooses the next tokens on the device, so that the choice can be captured with it.

Shapes: `B` rows, `V` vocabulary, `S` numbers that a choice reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable

from torch import Tensor

__all__ = ["MOST_LIKELY", "Chooser", "MostLikely"]


class Chooser(ABC):
    """Chooses a token for each row.

    A choice is captured: it reads nothing back to the host, and its shapes and all that it does
    depend on `key` alone. What differs from row to row or from step to step comes in numbers.
    """

    reads = False
    """Whether it reads numbers, which differ from step to step."""

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """Equal for choosers that can share a captured step."""

    @abstractmethod
    def choose(self, logits_BV: Tensor, choice_BS: Tensor | None) -> Tensor:
        """The next token of each row, (B,).

        Args:
            logits_BV: Scores.
            choice_BS: Numbers of each row, float64, on the same device, where it reads any. Rows
                that are not in use may hold any numbers, zeros among them.
        """


class MostLikely(Chooser):
    """The most likely token of each row; it reads no numbers."""

    @property
    def key(self) -> Hashable:
        """The same for all."""
        return "most likely"

    def choose(self, logits_BV: Tensor, choice_BS: Tensor | None) -> Tensor:
        """The most likely token of each row, (B,)."""
        return logits_BV.max(dim=-1).indices


MOST_LIKELY = MostLikely()
