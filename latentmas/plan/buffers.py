"""Memory of the executors `static` and `cuda_graph`: buffers of fixed size, kept over turns.

Shapes are rounded up, so that few of them serve all batches; a backbone keeps the last ones.
"""

from __future__ import annotations

from latentmas.plan.cost import Model, Run

__all__ = ["KEPT", "SMALLEST", "Buffers", "bucket"]

SMALLEST = 64
"""Columns of the smallest buffers."""
KEPT = 6
"""Buffers of a backbone that are kept for later turns."""
INDEX = 8

Shape = tuple[int, int]
"""Rows and columns."""


def bucket(count: int) -> int:
    """The least power of two, or three quarters of one, that is not below `count`."""
    power = 1 << max(0, count - 1).bit_length()
    three = power * 3 // 4
    return three if power >= 4 and three >= count else power


class Buffers:
    """All buffers of a team, as turns take them and leave them."""

    def __init__(self) -> None:
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
            self._leave(free, held)
            held = larger
        self._leave(free, held)
        return worst

    @staticmethod
    def _take(free: list[Shape], rows: int, columns: int) -> Shape:
        shape = bucket(rows), max(SMALLEST, bucket(columns))
        if shape in free:
            free.remove(shape)
        return shape

    @staticmethod
    def _leave(free: list[Shape], shape: Shape) -> None:
        free.append(shape)
        del free[:-KEPT]

    def _bytes(self) -> int:
        return sum(_size(model, shape) for model, free in self._free.values() for shape in free)


def _size(model: Model, shape: Shape) -> int:
    rows, columns = shape
    return model.whole(rows, columns) + rows * columns * INDEX
