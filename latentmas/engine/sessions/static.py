"""A feed over buffers of fixed size, whose single steps can be replayed from a CUDA graph.

Shapes: `B` rows, `T` new positions, `L` columns so far, `C` capacity, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from latentmas.backbones import LoadedBackbone, StaticBuffers, StaticKVCache
from latentmas.engine.buffers import SMALLEST, Use, bucket, enlarged, row_bucket
from latentmas.engine.choosers import MOST_LIKELY, Chooser
from latentmas.engine.cuda_graphs import Replay, replay_of
from latentmas.engine.inner import Inner, links_of
from latentmas.engine.lease import lease, release
from latentmas.engine.packing import Packed
from latentmas.engine.reuse.beginnings import state_after
from latentmas.engine.sessions._base import DecoderSession
from latentmas.engine.sessions.prompts import PromptSession
from latentmas.plan import PositionMode

__all__ = ["StaticSession"]


class StaticSession(PromptSession):
    """Prompts are read step by step as ever; what follows them costs the host one replay each.

    Its rows are the first ones of its buffers. A step runs over the smallest number of rows and
    columns, of a few that graphs are captured for, which holds all of them; the rest is masked.
    Never differentiable: its buffers are written in place.
    """

    def __init__(
        self, backbone: LoadedBackbone, mode: PositionMode, *, captures: bool, compile_step: bool
    ) -> None:
        super().__init__(backbone, mode)
        self._captures, self._compile = captures, compile_step
        self._begins: list[int] = []
        """Columns of padding on each row's left, as far as the host knows."""
        self._held: StaticBuffers | None = None
        self._ahead: int | None = None
        """Single steps that the buffers know of and `mask_BL` does not; None: they are behind."""

    @property
    def _buffers(self) -> StaticBuffers:
        assert self._held is not None, "nothing was fed yet"
        return self._held

    @property
    def _use(self) -> Use:
        return "text" if self.takes_in else "turn"

    @property
    def _length(self) -> int:
        return self._buffers.cursor.length

    @property
    def _rows(self) -> int:
        assert self.mask_BL is not None
        return self.mask_BL.shape[0]

    @property
    def _memory(self) -> StaticKVCache:
        return self._buffers.state(self._rows, self._columns(self._length))

    def _start(self, prompt: Packed) -> StaticKVCache:
        rows, length = prompt.x_BTD.shape[:2]
        self._held = lease(self.backbone, self._use, rows, length + self._more)
        prefix = prompt.prefix
        kept = prefix is not None and prefix.beginning > 0 and prefix.begins(prompt.ids_BT)
        self._begins = [0 if kept else length - own for own in prompt.lengths]
        return self._held.state(rows, self._columns(length))

    def _start_after(self, prompt: Packed, ids: tuple[int, ...]) -> None:
        state = self._start(prompt)
        self._begins = [0] * len(prompt.lengths)
        state.put_keys_and_values(state_after(self.backbone, ids, 1).keys_and_values())

    def feed(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Append positions: one by a replay, several as they come."""
        rows, new = x_BTD.shape[:2]
        if new == 1 and mask_BT is None:
            self._ready(1)
            state = self._step_state(1)
            state.x_B1D[:rows].copy_(x_BTD)
            self._replay(state, None)(self.backbone, state, None)
            self._step()
            return state.h_BD[:rows].clone()
        self._settle()
        self._fit(new)
        places = self._extend(x_BTD, mask_BT)
        assert self.mask_BL is not None
        mask_BL, state = self.mask_BL, self._buffers.state(rows, self._columns(self._length + new))
        if new == 1:
            state.place(mask_BL, places[:, 0])
            mask_BL = state.mask_BC
        given = x_BTD, places, mask_BL, state
        h_B1D = self.backbone.step(*given, padded=self.padded, last=True)
        state.advance(new)
        return h_B1D[:, 0]

    @property
    def runs_ahead(self) -> bool:
        """Whether steps are captured, head and choice inside."""
        return self._captures and self._buffers.kept

    def write_ahead(
        self, ids_B: Tensor, chooser: Chooser = MOST_LIKELY, choice_BS: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Append a token to every row by a replay that also chooses the next ones."""
        rows = len(ids_B)
        self._ready(1)
        state = self._step_state(1)
        state.token_B[:rows].copy_(ids_B)
        if choice_BS is not None:
            state.choice_BS[:rows].copy_(choice_BS, non_blocking=True)
        self._replay(state, None, chooser)(self.backbone, state, None)
        self._step()
        return state.h_BD[:rows].clone(), state.token_B[:rows].clone()

    def roll(self, inner: Inner, h_BD: Tensor, count: int) -> list[Tensor]:
        """Latent steps with the inner link inside the replayed step; the host only counts."""
        if count == 0:
            return []
        if not all(getattr(link, "capturable", True) for link in links_of(inner)):
            return super().roll(inner, h_BD, count)
        self._ready(count)
        rows, state, states = h_BD.shape[0], self._step_state(count), list[Tensor]()
        state.h_BD[:rows].copy_(h_BD)
        replay = self._replay(state, inner)
        for _ in range(count):
            replay(self.backbone, state, inner)
            self._step()
            states.append(state.h_BD[:rows].clone())
        return states

    def select(self, rows: Sequence[int]) -> None:
        """Go on with some rows, which move to the first places."""
        self._settle()
        wanted, old, length = list(rows), self._buffers, self._length
        self._select_columns(wanted)
        self._begins = [self._begins[row] for row in wanted]
        cut = self._drop_padding(always=False)
        if len(wanted) > old.rows:
            self._held = lease(self.backbone, self._use, len(wanted), old.capacity)
        self._buffers.copy_rows(old, wanted, length=length, shift=-cut)
        self._buffers.cursor.length = length - cut
        if self._buffers is not old:
            release(self.backbone, old)

    def join(self, other: DecoderSession) -> None:
        """Take the other feed's rows into places after one's own."""
        assert isinstance(other, StaticSession)
        self._settle()
        other._settle()
        old, own, lengths = self._buffers, self._rows, (self._length, other._length)
        more, others_more = self._join_columns(other)
        self._begins = [n + more for n in self._begins] + [n + others_more for n in other._begins]
        cut = self._drop_padding(always=False)
        length = max(lengths) - cut
        if self._rows > old.rows or length >= old.capacity:
            columns = max(old.capacity, enlarged(length, 1))
            self._held = lease(self.backbone, self._use, self._rows, columns)
        held = self._buffers
        held.copy_rows(old, range(own), length=lengths[0], shift=more - cut)
        held.copy_rows(
            other._buffers,
            range(self._rows - own),
            at=own,
            length=lengths[1],
            shift=others_more - cut,
        )
        held.cursor.length = length
        if held is not old:
            release(self.backbone, old)
        other.close()

    def should_compact(self, kept: int, rows: int) -> bool:
        """Whether rows have ended: only those are copied that take their places."""
        return kept < rows

    def close(self) -> None:
        """Leave the buffers to later turns."""
        if self._held is not None:
            release(self.backbone, self._held)
        self._held = None

    @property
    def _rounds(self) -> bool:
        """Whether steps are of few sizes, because each of them is captured or compiled."""
        return self._compile or (self._captures and self._buffers.kept)

    def _replay(
        self, state: StaticKVCache, inner: Inner | None, chooser: Chooser | None = None
    ) -> Replay:
        return replay_of(
            self._buffers,
            state,
            inner,
            captures=self._captures and self._rounds,
            compile_step=self._compile,
            chooser=chooser,
        )

    def _step_state(self, count: int) -> StaticKVCache:
        """The state over which the next steps run."""
        rows = min(row_bucket(self._rows), self._buffers.rows) if self._rounds else self._rows
        return self._buffers.state(rows, self._columns(self._length + count))

    def _columns(self, length: int) -> int:
        return min(max(SMALLEST, bucket(length)), self._buffers.capacity)

    def _step(self) -> None:
        """Count a single step."""
        assert self._ahead is not None
        self._ahead += 1
        self._buffers.cursor.length += 1

    def _ready(self, count: int) -> None:
        """Bring the buffers up to date, with room for single steps."""
        if self._length + count > self._buffers.capacity:
            self._settle()
            self._fit(count)
        if self._ahead is None:
            assert self.mask_BL is not None
            assert self.next_B is not None
            self._step_state(count).place(self.mask_BL, self.next_B)
            self._ahead = 0

    def _settle(self) -> None:
        """Bring mask and positions up to what single steps have done."""
        if self._ahead:
            assert self.mask_BL is not None
            assert self.next_B is not None
            self.mask_BL = F.pad(self.mask_BL, (0, self._ahead), value=1)
            self.next_B = self.next_B + self._ahead
        self._ahead = None

    def _drop_padding(self, *, always: bool) -> int:
        """Forget the columns on the left that are padding in every row; returns how many.

        Rows that leave leave their columns behind: without this, a batch that others keep joining
        would need ever larger buffers. It is done where steps then run over fewer columns, since
        all rows have to be moved.
        """
        assert self.mask_BL is not None
        cut, length = min(self._begins), self.mask_BL.shape[1]
        sizes = [max(SMALLEST, bucket(columns + 1)) for columns in (length - cut, length)]
        if not always and sizes[0] == sizes[1]:
            return 0
        self.mask_BL = self.mask_BL[:, cut:]
        self._begins = [begin - cut for begin in self._begins]
        return cut

    def _fit(self, new: int) -> None:
        """Make room for `new` positions: without common padding, or in larger buffers."""
        old, length = self._buffers, self._length
        if length + new <= old.capacity:
            return
        cut = self._drop_padding(always=True)
        if length - cut + new > old.capacity:
            columns = enlarged(length - cut, new)
            self._held = lease(self.backbone, self._use, self._rows, columns)
        self._buffers.copy_rows(old, range(self._rows), length=length, shift=-cut)
        self._buffers.cursor.length = length - cut
        if self._buffers is not old:
            release(self.backbone, old)
