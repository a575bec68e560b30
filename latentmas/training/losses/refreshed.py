"""States after words and after rollouts, from which links learn without gradients of backbones.

The rollouts are repeated from time to time with the current inner links; in between, links learn
from those that are kept (dataset aggregation, DAgger, arXiv 1011.0686, with the newest states
only).

Shapes: `B` rows, `K` latent steps, `D` width, `N` steps that a row takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor

from latentmas.links import Link
from latentmas.training.data import Row, TrainingRows
from latentmas.training.losses.passes import PassReader
from latentmas.training.losses.teacher_forcing import padded_ids
from latentmas.training.losses.turns import SenderStep
from latentmas.training.speech import Speech, TextMessages

__all__ = ["RefreshedStates"]

BLOCK = 32
"""Rows that are read together."""


class _Read(NamedTuple):
    """A block of rows, read by an agent in a round."""

    reader: PassReader
    real_BK: Tensor


class RefreshedStates:
    """States of each turn, row by row: after the words, and after rollouts since the last refresh.

    Rows are computed in fixed blocks of the data, whatever the batches are, by copies of the inner
    links that are made at a refresh: a training that resumes with these copies gets the same bits.
    Before the first refresh there are no rollouts.
    """

    def __init__(self, speech: Speech, rows: TrainingRows, every: int, keep_bytes: int) -> None:
        """Prepare; nothing runs.

        Args:
            speech: Texts of the agents.
            rows: Training rows; states of other rows are computed on request and never kept.
            every: Number of steps between two refreshes.
            keep_bytes: Maximum number of bytes of prompts' keys and values, and of states; those
                that do not fit are computed again.
        """
        self.every = every
        self._speech, self._rows, self._room = speech, rows, keep_bytes
        self._places = {number: place for place, (number, _) in enumerate(rows)}
        self._read: dict[tuple[str, int, int], _Read] = {}
        self._forced: dict[tuple[str, int, int], Tensor] = {}
        self._rolled: dict[tuple[str, int, int], Tensor] = {}
        self._copies: dict[str, Link] = {}

    def begin_step(self, step: int, inner: Mapping[str, Link]) -> None:
        """Refresh where it is due: at each `every`-th step, and where a resumed run has no copies.

        Args:
            step: number of the optimizer's step, from 0.
            inner: the inner links of the turns, by id.
        """
        if step == 0:
            self.forget()  # of an earlier training with the same trainer
        due = step > 0 and step % self.every == 0
        if due or (step > self.every and not self._copies):
            self._copies = {id: deepcopy(link).requires_grad_(False) for id, link in inner.items()}
            self._forget_rollouts()

    def forget(self) -> None:
        """Drop the copies and their rollouts."""
        self._copies = {}
        self._forget_rollouts()

    def copies_state(self) -> dict[str, Tensor]:
        """Weights of the links that have made the rollouts, by link and name; empty before any."""
        return {
            f"{id}/{name}": tensor.detach().cpu().contiguous()
            for id, link in self._copies.items()
            for name, tensor in link.state_dict().items()
        }

    def restore(self, state: Mapping[str, Tensor], inner: Mapping[str, Link]) -> None:
        """Take over what `copies_state` of another training returned.

        Raises:
            ValueError: it does not belong to these links.
        """
        wanted = {f"{id}/{name}" for id, link in inner.items() for name in link.state_dict()}
        if set(state) != wanted:
            raise ValueError(f"found {sorted(set(state) ^ wanted)[:4]} on one side only")
        copies = {id: deepcopy(link).requires_grad_(False) for id, link in inner.items()}
        for id, link in copies.items():
            own = {key.removeprefix(f"{id}/"): t for key, t in state.items()}
            try:
                link.load_state_dict({name: own[name] for name in link.state_dict()})
            except RuntimeError as error:
                raise ValueError(str(error)) from error
        self._copies = copies
        self._forget_rollouts()

    @torch.no_grad()
    def states(self, turn: SenderStep, numbers: Sequence[int]) -> list[Tensor]:
        """Teacher-forced states of a batch, and those of rollouts once there are any; each h_ND.

        Args:
            turn: Agent in a round.
            numbers: Numbers of training rows.
        """
        places = [self._places[number] for number in numbers]
        found = [self._cat(turn, places, self._forced, None)]
        if (inner := self._copies.get(turn.inner)) is not None:
            found.append(self._cat(turn, places, self._rolled, inner))
        return found

    @torch.no_grad()
    def fresh(
        self, turn: SenderStep, rows: Sequence[Row], said: Sequence[TextMessages], inner: Link
    ) -> list[Tensor]:
        """The same two for rows outside the training, rolled out by a link as it is now."""
        read = self._prompts(turn, rows, said)
        forced_BKD = self._forced_states(turn, read, said)
        return [forced_BKD[read.real_BK], read.reader.roll(inner)[read.real_BK]]

    def _cat(
        self,
        turn: SenderStep,
        places: Sequence[int],
        kept: dict[tuple[str, int, int], Tensor],
        inner: Link | None,
    ) -> Tensor:
        """States of rows one after another, from what is kept or from their blocks."""
        key = turn.agent, turn.round
        own = {place: kept[*key, place] for place in places if (*key, place) in kept}
        wanted = set(places)
        for block in sorted({place // BLOCK for place in wanted - own.keys()}):
            for place, h_ND in self._compute(turn, block, inner).items():
                if place in wanted:  # the block's other rows live on only where there is room
                    own[place] = h_ND
                if (*key, place) not in kept and self._takes(h_ND):
                    kept[*key, place] = h_ND
        states = torch.cat([own[place] for place in places])
        return states.to(self._speech.system.backbone_of(turn.agent).device)

    def _compute(self, turn: SenderStep, block: int, inner: Link | None) -> dict[int, Tensor]:
        """States of a block's rows by place, after rollouts by a link or teacher-forced."""
        first = block * BLOCK
        chosen = self._rows[first : first + BLOCK]
        said = self._speech.speak([row for _, row in chosen], [number for number, _ in chosen])
        full = [i for i, own in enumerate(said) if self._speech.ids(turn.agent, turn.round, own)]
        text_messages = [said[i] for i in full]
        read = self._read.get((turn.agent, turn.round, block))
        if read is None:
            read = self._prompts(turn, [chosen[i][1] for i in full], text_messages)
            if self._takes(*read.reader.held(), read.real_BK):
                self._read[turn.agent, turn.round, block] = read
        h_BKD = (
            self._forced_states(turn, read, text_messages)
            if inner is None
            else read.reader.roll(inner)
        )
        return {
            first + i: own_KD[real_K].cpu()
            for i, own_KD, real_K in zip(full, h_BKD, read.real_BK, strict=True)
        }

    def _prompts(
        self, turn: SenderStep, rows: Sequence[Row], said: Sequence[TextMessages]
    ) -> _Read:
        backbone = self._speech.system.backbone_of(turn.agent)
        _, real_BK = padded_ids(backbone, self._texts(turn, said))
        prompt = self._speech.prompt(turn.agent, turn.round, rows, said)
        return _Read(PassReader(backbone, prompt, real_BK), real_BK)

    def _forced_states(self, turn: SenderStep, read: _Read, said: Sequence[TextMessages]) -> Tensor:
        backbone = self._speech.system.backbone_of(turn.agent)
        ids_BK, _ = padded_ids(backbone, self._texts(turn, said))
        return read.reader.read(backbone.embed(ids_BK[:, :-1]))

    def _texts(self, turn: SenderStep, said: Sequence[TextMessages]) -> list[list[int]]:
        return [self._speech.ids(turn.agent, turn.round, own) for own in said]

    def _takes(self, *tensors: Tensor) -> bool:
        """Whether there is room to keep some tensors; it is theirs then."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if size > self._room:
            return False
        self._room -= size
        return True

    def _forget_rollouts(self) -> None:
        self._room += sum(h_ND.numel() * h_ND.element_size() for h_ND in self._rolled.values())
        self._rolled.clear()
