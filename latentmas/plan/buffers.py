"""Memory of the executors `static` and `cuda_graph`: buffers of fixed size, kept over turns.

Shapes are rounded up, so that few of them serve all batches; a backbone keeps the last ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from latentmas.plan.cost import Model, Run

__all__ = ["KEPT", "KEPT_SHARE", "SMALLEST", "Buffers", "bucket", "surplus"]

SMALLEST = 64
"""Columns of the smallest buffers."""
KEPT = 6
"""Buffers of a backbone that are kept for later turns, however large they are."""
KEPT_SHARE = 8
"""More are kept while all of a backbone's take no more than one in so many bytes of a CUDA device:
their graphs need not be captured again."""
INDEX = 8

Shape = tuple[int, int]
"""Rows and columns."""


def bucket(count: int) -> int:
    """The least power of two, or three quarters of one, that is not below `count`.

    Sizes are rounded up to these, so that few shapes of buffers and graphs serve all batches.
    """
    power = 1 << max(0, count - 1).bit_length()
    three = power * 3 // 4
    return three if power >= 4 and three >= count else power


def surplus(sizes: Sequence[int], spare: int) -> int:
    """How many buffers must go, the oldest first.

    Args:
        sizes: bytes of a backbone's kept buffers, the oldest first.
        spare: bytes within which more than `KEPT` of them may stay.
    """
    stay, total = 0, 0
    for size in reversed(sizes):
        total += size
        if stay >= KEPT and total > spare:
            break
        stay += 1
    return len(sizes) - stay


class Buffers:
    """All buffers of a team, as turns take them and leave them."""

    def __init__(self, spare: int = 0) -> None:
        """None yet; `spare` as in `surplus`."""
        self._spare = spare
        self._free: dict[str, tuple[Model, list[Shape]]] = {}

    def turn(self, key: str, run: Run) -> int:
        """Bytes of all buffers at a turn's worst moment.

        Args:
            key: of the backbone.
            run: the turn.
        """
        model, rows, end = run.model, run.rows, run.positions + run.calls
        _, free = self._free.setdefault(key, (model, []))
        held = self._take(free, rows, run.room)
        worst = self._bytes() + _size(model, held)
        while end > held[1]:
            larger = self._take(free, rows, held[1] + max(1, held[1] // 2))
            worst = max(worst, self._bytes() + _size(model, held) + _size(model, larger))
            self._leave(model, free, held)
            held = larger
        self._leave(model, free, held)
        return worst

    @staticmethod
    def _take(free: list[Shape], rows: int, columns: int) -> Shape:
        shape = bucket(rows), max(SMALLEST, bucket(columns))
        if shape in free:
            free.remove(shape)
        return shape

    def _leave(self, model: Model, free: list[Shape], shape: Shape) -> None:
        free.append(shape)
        del free[: surplus([_size(model, kept) for kept in free], self._spare)]

    def _bytes(self) -> int:
        return sum(_size(model, shape) for model, free in self._free.values() for shape in free)


def _size(model: Model, shape: Shape) -> int:
    rows, columns = shape
    return model.whole(rows, columns) + rows * columns * INDEX
