"""An executor that counts what a backbone would be fed, and feeds nothing.

It goes by the runtime's own rules: which rollouts are one batch, what a prompt has in common with
an earlier one, how much room a turn asks for. Only loops of single positions are not gone through.

Shapes: `B` batch, `T` prompt positions, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from latentmas.backbones import LoadedBackbone
from latentmas.cost.standins import BackboneStandIn, LinkStandIn
from latentmas.engine import DecoderSession, Executor, Inner, Packed
from latentmas.generation import GenerationBatch

__all__ = ["Counting", "CountingBatch", "Fed", "Ledger", "Values"]

Use = tuple[LinkStandIn, int]
"""A link, and the rows that it is applied to."""


@dataclass
class Fed:
    """What a backbone is fed in one turn."""

    backbone: BackboneStandIn
    rows: int = 0
    """B, of all agents in the batch."""
    reads: list[tuple[int, int]] = field(default_factory=list)
    """New and past positions of the calls that read the prompt."""
    reserved: int = 0
    """Positions after the prompt that room is asked for."""
    calls: int = 0
    """Calls of one position after the prompt."""
    tokens: int = 0
    """Tokens that each row writes."""
    inner: list[Use] = field(default_factory=list)
    """Links applied at each of these calls."""
    reused: int = 0
    """Positions taken from an earlier turn."""
    kept: int = 0
    """Positions whose state is put by for later turns."""
    values: int = 0
    """Bytes of states and messages that were there when it began."""

    @property
    def positions(self) -> int:
        """Positions of the longest prompt."""
        return sum(self.reads[-1])


class Values(dict[str, Any]):
    """The values of a walk, which know how many bytes they would take."""

    times = 1
    """Samples that each row stands for."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        """None yet; `sizes` are bytes of a row at one latent step, by name."""
        super().__init__()
        self._sizes = sizes
        self.nbytes = 0
        """Bytes of states and messages; texts are not counted."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self.nbytes += self._size(name, value)

    def pop(self, name: str, *default: Any) -> Any:
        """Take a value out."""
        value = super().pop(name, *default)
        self.nbytes -= self._size(name, value)
        return value

    def _size(self, name: str, value: Any) -> int:
        if not isinstance(value, Tensor):
            return 0
        return value.shape[0] * value.shape[1] * self.times * self._sizes[name]


@dataclass
class Ledger:
    """What has been counted since it was last read."""

    values: Values
    fed: list[Fed] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)

    @property
    def times(self) -> int:
        """Samples that each row stands for."""
        return self.values.times

    def applied(self, link: LinkStandIn, rows: int) -> None:
        """Note that a link is applied."""
        self.uses.append((link, rows * self.times))

    def open(self, backbone: LoadedBackbone) -> Fed:
        """A turn that begins."""
        assert isinstance(backbone, BackboneStandIn)
        self.fed.append(Fed(backbone, values=self.values.nbytes))
        return self.fed[-1]

    def take_uses(self) -> list[Use]:
        """Uses of links that nobody has taken yet."""
        uses, self.uses = self.uses, []
        return uses


class Counting(Executor):
    """Groups agents and reuses prompts as another kind of executor does."""

    name = "counting"

    def __init__(self, kind: type[Executor], ledger: Ledger) -> None:
        super().__init__()
        self.groups, self.reuses = kind.groups, kind.reuses
        self.ledger = ledger

    def session(self, backbone: LoadedBackbone) -> DecoderSession:
        """A feed that writes into the ledger."""
        return _CountingSession(backbone, self.ledger)


class _CountingSession(DecoderSession):
    def __init__(self, backbone: LoadedBackbone, ledger: Ledger) -> None:
        super().__init__(backbone, "mask")
        self._ledger, self._columns = ledger, 0
        self.fed = ledger.open(backbone)

    def reserve(self, count: int) -> None:
        """Note how much room is asked for."""
        self.fed.reserved = count

    def prefill(self, prompt: Packed) -> Tensor:
        """Note the calls that read a prompt, in two parts where a prefix is put by."""
        self.fed.rows = len(prompt.lengths) * self._ledger.times
        state: Any = self  # what a snapshot is taken of
        return self._feed_after_prefix(prompt, state)

    def feed(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Note a call; the state is the last input."""
        self.fed.reads.append((x_BTD.shape[1], self._columns))
        self._columns += x_BTD.shape[1]
        return x_BTD[:, -1]

    def roll(self, inner: Inner, h_BD: Tensor, count: int) -> list[Tensor]:
        """Note calls that are alike at once."""
        self.fed.calls = count
        if count:
            h_BD = inner.apply_to(h_BD)
            self.fed.inner = self._ledger.take_uses()
        return [h_BD] * count

    def write(self, count: int) -> None:
        """Note that tokens are written; the last one is not fed."""
        self.fed.tokens, self.fed.calls = count, count - 1

    def snapshot(self) -> list[dict[str, Any]]:
        """Note that the state is put by."""
        self.fed.kept = self._columns
        return []

    def restore(self, snapshot: list[dict[str, Any]]) -> None:
        """Nothing to put back; the columns follow."""

    def _extend(self, x_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Columns from a snapshot."""
        self._columns += x_BTD.shape[1]
        self.fed.reused = self.fed.kept = self._columns
        return x_BTD

    def select(self, rows: Sequence[int]) -> None:
        """Nothing is kept by row."""

    def join(self, other: DecoderSession) -> None:
        """Never called, as `can_merge` says."""
        raise NotImplementedError

    def can_merge(self) -> bool:
        """No."""
        return False


class CountingBatch(GenerationBatch):
    """A pool whose rows write as much as they may."""

    def run(self) -> None:
        """Let every row write until its limit, at once."""
        count = max(row.max_new_tokens for row in self._rows)
        assert isinstance(self._feed, _CountingSession)
        self._feed.write(count)
        for row in self._rows:
            row.ids, row.chosen = [0] * row.max_new_tokens, row.max_new_tokens
            row.open, row.finish = False, "length"
        self.close()
