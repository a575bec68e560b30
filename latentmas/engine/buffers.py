"""Which buffers of fixed size a backbone has, as the executors `static` and `cuda_graph` use them.

Sizes are rounded up, so that few of them serve all batches. Buffers are kept for the life of the
loaded backbone, within a limit of bytes: those beyond it are released after their turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, Protocol, TypeVar
from weakref import ReferenceType, ref

__all__ = ["HOST_LIMIT", "KEPT_SHARE", "BufferPool", "Shape", "Use"]
__all__ += ["bucket", "enlarged", "row_bucket", "shape_for"]

SMALLEST = 64
"""Columns of the smallest buffers."""
KEPT_SHARE = 8
"""On CUDA, a backbone's buffers are kept within one in so many bytes of the device's memory."""
HOST_LIMIT = 2**31
"""Bytes of a backbone's buffers that are kept on other devices."""

Shape = tuple[int, int]
"""Rows and columns."""
Use = Literal["turn", "text"]
"""What buffers are for: a single turn of an agent, or texts that later turns may join."""


def bucket(count: int) -> int:
    """The least power of two, or three quarters of one, that is not below `count`.

    Columns are rounded up to these.
    """
    power = 1 << max(0, count - 1).bit_length()
    three = power * 3 // 4
    return three if power >= 4 and three >= count else power


def row_bucket(count: int) -> int:
    """The least power of two that is not below `count`; rows are rounded up to these."""
    return 1 << max(0, count - 1).bit_length()


def shape_for(rows: int, columns: int) -> Shape:
    """The shape of buffers that serve so many rows and columns."""
    return row_bucket(rows), max(SMALLEST, bucket(columns))


def enlarged(length: int, new: int) -> int:
    """Columns to ask for when `new` ones do not fit after `length`."""
    return length + max(new, length // 2)


class Sized(Protocol):
    """Buffers of some size."""

    rows: int
    capacity: int
    nbytes: int


B = TypeVar("B", bound=Sized)


class BufferPool(Generic[B]):
    """The buffers of one backbone: each serves one session at a time.

    Those of a use are tried in the order in which they were made, so that a workload that runs
    again meets the same ones.
    """

    def __init__(self, limit: int) -> None:
        """No buffers yet.

        Args:
            limit: Maximum number of bytes that are kept.
        """
        self.limit = limit
        self._free: dict[Use, list[tuple[int, B]]] = {"turn": [], "text": []}
        self._taken: dict[int, tuple[Use, ReferenceType[B]]] = {}
        """Kept buffers that a session has, by number; one that is dropped without `leave` goes."""
        self._made = 0

    def take(self, use: Use, rows: int, columns: int) -> B | None:
        """Free buffers that are large enough; None: others must be made."""
        for place, (number, buffers) in enumerate(self._free[use]):
            if buffers.rows >= rows and buffers.capacity >= columns:
                del self._free[use][place]
                self._taken[number] = use, ref(buffers)
                return buffers
        return None

    def has_room(self, nbytes: int) -> bool:
        """Whether new buffers of so many bytes are to be kept."""
        return self.nbytes + nbytes <= self.limit

    def keep(self, use: Use, buffers: B) -> None:
        """Count new buffers, which their maker uses first."""
        self._made += 1
        self._taken[self._made] = use, ref(buffers)

    def leave(self, buffers: B) -> None:
        """Take buffers back; nothing happens to those that are not kept."""
        for number, (use, taken) in list(self._taken.items()):
            if taken() is buffers:
                del self._taken[number]
                self._free[use].append((number, buffers))
                self._free[use].sort(key=lambda one: one[0])

    def provide(self, use: Use, rows: int, columns: int, make: Callable[[Shape], B]) -> B:
        """Kept buffers of this size at least, in place of all smaller free ones of that use.

        Args:
            use: What they are for.
            rows: Number of rows.
            columns: Number of columns.
            make: Makes new ones of a shape.
        """
        fitting = self.take(use, rows, columns)
        if fitting is None:
            self._free[use] = []
            fitting = make(shape_for(rows, columns))
            self.keep(use, fitting)
        return fitting

    def clear(self) -> None:
        """Release the buffers that no session has."""
        for kept in self._free.values():
            kept.clear()

    @property
    def held(self) -> list[B]:
        """All kept buffers."""
        free = [buffers for kept in self._free.values() for _, buffers in kept]
        taken = [buffers() for _, buffers in self._taken.values()]
        return [*free, *(buffers for buffers in taken if buffers is not None)]

    @property
    def nbytes(self) -> int:
        """Bytes of all kept buffers."""
        return sum(buffers.nbytes for buffers in self.held)
