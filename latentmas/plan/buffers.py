"""Memory of the executors `static` and `cuda_graph`: buffers of fixed size, kept across turns.

Shapes are rounded up, so that a few of them serve all batches; a backbone keeps the latest ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from latentmas.plan.cost import Model, Run

__all__ = ["KEPT", "KEPT_SHARE", "SMALLEST", "Buffers", "bucket", "surplus"]

SMALLEST = 64
"""Number of columns of the smallest buffers."""
KEPT = 6
"""Number of a backbone's buffers that are kept for later turns, whatever their size."""
KEPT_SHARE = 8
"""More are kept as long as a backbone's buffers take at most this fraction (1/n) of a CUDA
device's memory, which saves capturing their graphs again."""
INDEX = 8

Shape = tuple[int, int]
"""Rows and columns."""


def bucket(count: int) -> int:
    """The smallest power of two, or three quarters of one, that is at least `count`.

    Sizes are rounded up to these, so that a few shapes of buffers and graphs serve all batches.
    """
    power = 1 << max(0, count - 1).bit_length()
    three = power * 3 // 4
    return three if power >= 4 and three >= count else power


def surplus(sizes: Sequence[int], spare: int) -> int:
    """Number of buffers to free, oldest first.

    Args:
        sizes: Sizes of a backbone's kept buffers in bytes, oldest first.
        spare: Number of bytes within which more than `KEPT` buffers may stay.
    """
    stay, total = 0, 0
    for size in reversed(sizes):
        total += size
        if stay >= KEPT and total > spare:
            break
        stay += 1
    return len(sizes) - stay


class Buffers:
    """All buffers of a team, as turns allocate and release them."""

    def __init__(self, spare: int = 0) -> None:
        """Start without buffers; `spare` as in `surplus`."""
        self._spare = spare
        self._free: dict[str, tuple[Model, list[Shape]]] = {}

    def turn(self, key: str, run: Run) -> int:
        """Peak size of all buffers during a turn, in bytes.

        Args:
            key: Key of the backbone.
            run: The turn.
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
