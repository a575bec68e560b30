"""The rollout loop's loss: links learn on the states that they bring about themselves.

Shapes: `B` batch, `K` latent steps, `J = K - 1` positions that are fed after the prompt, `D` width,
`N` pairs of a state and the embedding that it is to become.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentmas.generation import random_stream
from latentmas.links import Link
from latentmas.runtime import System
from latentmas.training.data import Row, TrainingRows
from latentmas.training.losses.passes import Boundary, PassReader, parallel_passes
from latentmas.training.losses.refreshed import RefreshedStates
from latentmas.training.losses.regression import mean_square, regression
from latentmas.training.losses.soft_targets import SoftTargets
from latentmas.training.losses.teacher_forcing import padded_ids
from latentmas.training.losses.turns import SenderStep, find_turns
from latentmas.training.speech import Speech, TextMessages, as_read

__all__ = ["RolloutLoss"]


class _Pass(NamedTuple):
    """What one pass of a turn adds to the loss."""

    number: int
    weight: float
    """Over those of the turn's other passes."""
    total: Tensor
    """Sum over its items."""
    items: int


class RolloutLoss(nn.Module):
    """Regression of messages to words, over parallel passes on the links' own outputs.

    Each sender reads its prompt, with texts in its slots. The first pass feeds the words that it
    should say; each later one feeds what the inner link has made of the states of the pass before,
    at all positions at once. After every pass inner(h) is to become the sender's embedding of each
    word, and each message the receiver's. Gradients run through all passes and the frozen backbone.
    """

    def __init__(
        self,
        system: System,
        *,
        targets: Mapping[str, str] | None = None,
        passes: int = 4,
        pass_weights: Sequence[float] | None = None,
        gradient: bool = True,
        mix: float = 0.0,
        row_clip: float | None = None,
        soft_temperature: float | None = None,
        cosine_weight: float = 1.0,
        mse_weight: float = 1.0,
        seed: int = 0,
        rows: TrainingRows | None = None,
        refresh_steps: int | None = None,
        keep_bytes: int = 2**32,
    ) -> None:
        """Prepare.

        Args:
            system: System whose links are trained.
            targets: field of a row with each agent's text, the same in every round; None lets the
                text twin speak.
            passes: passes after the teacher-forced one; a sender of K steps takes K - 1 at most.
            pass_weights: weights of the teacher-forced pass and those after it; None: all equal.
            gradient: whether gradients flow from a pass into the one before it.
            mix: probability of a word's embedding in place of a link's output, in training.
            row_clip: Maximum norm of the gradient that a row's summed loss sends from a pass into
                the one before; None for no limit.
            soft_temperature: words are the teacher-forced distribution at this temperature, mixed
                over the embeddings; None: the text's own.
            cosine_weight: Weight of 1 - cosine.
            mse_weight: Weight of the squared error, relative to the embeddings' mean square.
            seed: Random seed of `mix`.
            rows: Training rows, for `refresh_steps`.
            refresh_steps: Learn from kept states, and repeat the rollouts after this many steps,
                instead of parallel passes: the teacher-forced pass, and from the first refresh on
                the rollouts as a second one. None: parallel passes.
            keep_bytes: Maximum number of bytes that are kept for `refresh_steps`.
        """
        super().__init__()
        self.links = system.links
        self.speech = Speech(system, targets)
        self.passes, self.gradient, self.mix = passes, gradient, mix
        self.pass_weights, self.row_clip, self.seed = pass_weights, row_clip, seed
        self.step = 0
        """The optimiser step that draws of `mix` belong to."""
        self.weights = {"cosine_weight": cosine_weight, "mse_weight": mse_weight}
        self.turns = find_turns(self.speech)
        self.refreshed: RefreshedStates | None = None
        if refresh_steps is not None and rows is not None:
            self.refreshed = RefreshedStates(self.speech, rows, refresh_steps, keep_bytes)
        self._soft = None if soft_temperature is None else SoftTargets(system, soft_temperature)
        self.pass_losses: dict[int, float] | None = None
        """When a dict: filled with the mean loss of each pass."""

    def begin_step(self, step: int) -> None:
        """Learn which step of the optimizer comes next, from 0."""
        self.step = step
        if self.refreshed is not None:
            self.refreshed.begin_step(step, self.inner_links())

    def inner_links(self) -> dict[str, Link]:
        """The inner links of the turns, by id."""
        return {turn.inner: self.speech.system.link(turn.inner) for turn in self.turns}

    def n_items(self, rows: Sequence[Row], numbers: Sequence[int] | None = None) -> int:
        """Words of some rows, once for each link that is to say them; passes count as one."""
        said = self.speech.speak(rows, numbers)
        return sum(
            len(self.speech.ids(turn.agent, turn.round, text_messages)) * (1 + len(turn.uses))
            for turn in self.turns
            for text_messages in said
        )

    def forward(
        self,
        rows: Sequence[Row],
        numbers: Sequence[int] | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """The loss of a batch: mean over words and links, weighted mean over passes.

        Args:
            rows: B mappings with the graph's inputs.
            numbers: Numbers of the rows in the data, by which features are kept across epochs and
                random choices are made for `mix`.
            num_items_in_batch: items that the loss is divided by; None: those of the rows.
        """
        said = self.speech.speak(rows, numbers)
        names = list(range(len(rows))) if numbers is None else list(numbers)
        total = torch.zeros((), device=self.speech.system.backbone_of(self.turns[0].agent).device)
        scale: list[Tensor] = []
        found: list[_Pass] = []
        for turn in self.turns:
            full = [i for i, own in enumerate(said) if self.speech.ids(turn.agent, turn.round, own)]
            if not full:
                continue
            chosen = [rows[i] for i in full], [said[i] for i in full], [names[i] for i in full]
            if self.refreshed is None:
                found += self._passes(turn, *chosen, scale)
            else:
                found += self._of_states(turn, *chosen, kept=self.training and numbers is not None)
        for one in found:
            total = total + one.weight * one.total.to(total.device)
        self._note(found)
        count = sum(one.items for one in found if one.number == 0)
        if not total.requires_grad and torch.is_grad_enabled():  # no row says a word
            total = total + sum(0.0 * p.sum() for p in self.links.parameters() if p.requires_grad)
        if self.row_clip is not None and total.requires_grad:
            # How the trainer divides and scales the loss comes back as this gradient, which
            # arrives before any other: `row_clip` is then the same in every batch.
            total.register_hook(lambda grad: scale.append(grad.detach().abs()))
        return {"loss": total / (num_items_in_batch or max(count, 1))}

    def _passes(
        self,
        turn: SenderStep,
        rows: Sequence[Row],
        said: Sequence[TextMessages],
        names: Sequence[int],
        scale: list[Tensor],
    ) -> list[_Pass]:
        """The passes of a turn."""
        system = self.speech.system
        backbone, inner = system.backbone_of(turn.agent), system.link(turn.inner)
        texts = [self.speech.ids(turn.agent, turn.round, text_messages) for text_messages in said]
        ids_BK, real_BK = padded_ids(backbone, texts)
        prompt = self.speech.prompt(turn.agent, turn.round, rows, said)
        reader = PassReader(backbone, prompt, real_BK)
        gold_BJD = backbone.embed(ids_BK[:, :-1])
        # By the agent's steps, not by this batch's longest text: a row's loss is its own.
        count = min(self.passes, turn.steps - 1)
        boundary = self._boundary(turn, names, gold_BJD, scale)
        sums, wanted = list[Tensor](), list[Tensor]()
        for h_BKD, x_BKD in parallel_passes(reader, inner, gold_BJD, count, boundary):
            h_ND, z_ND = h_BKD[real_BK], x_BKD[real_BK]
            wanted = wanted or self._targets(turn, h_ND, ids_BK[real_BK])
            sums.append(self._regress(turn, h_ND, z_ND, wanted))
        weights = list(self.pass_weights or [1.0] * len(sums))[: len(sums)]
        items = int(real_BK.sum()) * len(wanted)
        return [
            _Pass(number, weights[number] / sum(weights), own, items)
            for number, own in enumerate(sums)
        ]

    def _of_states(
        self,
        turn: SenderStep,
        rows: Sequence[Row],
        said: Sequence[TextMessages],
        names: Sequence[int],
        *,
        kept: bool,
    ) -> list[_Pass]:
        """The teacher-forced states of a turn, and those of rollouts, both constant."""
        assert self.refreshed is not None
        inner = self.speech.system.link(turn.inner)
        if kept:
            states = self.refreshed.states(turn, names)
        else:
            states = self.refreshed.fresh(turn, rows, said, inner)
        texts = [self.speech.ids(turn.agent, turn.round, text_messages) for text_messages in said]
        ids_N = torch.tensor([id for text in texts for id in text], device=states[0].device)
        wanted = self._targets(turn, states[0], ids_N)
        sums = [self._regress(turn, h_ND, inner.apply_to(h_ND), wanted) for h_ND in states]
        items = len(ids_N) * len(wanted)
        return [_Pass(number, 1 / len(sums), own, items) for number, own in enumerate(sums)]

    def _regress(
        self, turn: SenderStep, h_ND: Tensor, z_ND: Tensor, wanted: Sequence[Tensor]
    ) -> Tensor:
        """Summed loss of an inner link and of the outer links that read it."""
        system = self.speech.system
        own = mean_square(system.backbone_of(turn.agent))
        total: Tensor = regression(z_ND, wanted[0], own, **self.weights)
        for use, e_ND in zip(turn.uses, wanted[1:], strict=True):
            outer: Link = system.link(use.link)
            message_ND = outer.apply_to(h_ND if "states" in outer.needs else z_ND)
            size = mean_square(system.backbone_of(use.edge.target))
            total = total + regression(message_ND, e_ND, size, **self.weights).to(total.device)
        return total

    @torch.no_grad()
    def _targets(self, turn: SenderStep, h_ND: Tensor, ids_N: Tensor) -> list[Tensor]:
        """What the inner link is to make of each state, and then each outer link."""
        readers = [turn.agent, *(use.edge.target for use in turn.uses)]
        if self._soft is not None:
            return [self._soft(turn.agent, reader, h_ND) for reader in readers]
        backbone_of = self.speech.system.backbone_of
        sender = backbone_of(turn.agent)
        own = sender.embed(ids_N)
        return [own, *(as_read(sender, backbone_of(reader), ids_N) for reader in readers[1:])]

    def _boundary(
        self, turn: SenderStep, names: Sequence[int], gold_BJD: Tensor, scale: list[Tensor]
    ) -> Boundary:
        """What happens to an inner link's outputs before the next pass reads them."""

        def cross(number: int, x_BJD: Tensor) -> Tensor:
            if not self.gradient:
                x_BJD = x_BJD.detach()
            elif self.row_clip is not None and x_BJD.requires_grad:
                # x_BJD is a slice of its own: what this pass's regression sends is not clipped.
                x_BJD.register_hook(lambda grad: _clipped(grad, self.row_clip, scale))
            if not self.mix or not self.training:
                return x_BJD
            stream = f"{self.seed}/{self.step}/{turn.agent}/{turn.round}/{number}"
            streams = [random_stream(f"{stream}/{name}") for name in names]
            taken_BJ = torch.stack([torch.rand(x_BJD.shape[1], generator=own) for own in streams])
            gold = (taken_BJ < self.mix).to(x_BJD.device)
            return torch.where(gold[..., None], gold_BJD.to(x_BJD.dtype), x_BJD)

        return cross

    def _note(self, found: Sequence[_Pass]) -> None:
        if self.pass_losses is not None:
            for number in sorted({one.number for one in found}):
                own = [one for one in found if one.number == number]
                total = sum(float(one.total.detach()) for one in own)
                self.pass_losses[number] = total / sum(one.items for one in own)


def _clipped(grad_BJD: Tensor, most: float | None, scale: Sequence[Tensor]) -> Tensor:
    """Each row's gradient with a norm of `most` at most, as the undivided loss has it."""
    assert most is not None
    norm_B = grad_BJD.flatten(1).norm(dim=1) / scale[-1].to(grad_BJD.device).clamp_min(1e-30)
    factor_B = (most / norm_B.clamp_min(1e-30)).clamp_max(1.0)
    return grad_BJD * factor_B[:, None, None].to(grad_BJD.dtype)
