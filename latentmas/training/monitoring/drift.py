"""Whether rollouts still say what they should: the accuracy of real messages, and their collapse.

Shapes: `B` batch, `K` latent steps, `D` width, `N` message rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from latentmas.backbones import LoadedBackbone
from latentmas.engine import executors
from latentmas.plan import Plan
from latentmas.redact import get_logger
from latentmas.runtime import System
from latentmas.training.data import Row
from latentmas.training.losses.passes import PassReader
from latentmas.training.losses.teacher_forcing import padded_ids
from latentmas.training.speech import Speech, Use, as_read

__all__ = ["rollout_accuracy", "warn_of_drift"]

log = get_logger(__name__)

PARTED = 0.2
"""Share of words that rollouts may lose against teacher forcing before training warns."""
COLLAPSED = 0.95
"""Mean cosine between messages of different rows from which on training warns."""
ROUNDING = 1e-5
"""How far apart two cosines of equal rows may come out."""
AT_ONCE = 2**25
"""Cosines (rows times vocabulary) that are computed at once."""


class _Gauge:
    """Sums over message rows of one edge in one round."""

    def __init__(self) -> None:
        self.right = {"forced": 0, "rollout": 0}
        self.rows = 0
        self.messages, self.words = _Likeness(), _Likeness()


class _Likeness:
    """Mean cosine between vectors of different rows of the data, position by position."""

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}
        self._counts: dict[int, int] = {}

    def add(self, x_BKD: Tensor, real_BK: Tensor) -> None:
        """Take in the rows of a batch."""
        unit_BKD = F.normalize(x_BKD.double(), dim=-1) * real_BK[..., None].to(x_BKD.device)
        for k, (sum_D, count) in enumerate(zip(unit_BKD.sum(0), real_BK.sum(0), strict=True)):
            self._sums[k] = self._sums.get(k, 0) + sum_D
            self._counts[k] = self._counts.get(k, 0) + int(count)

    def total(self) -> tuple[float, int]:
        """Sum of the cosines of all ordered pairs, and how many pairs there are."""
        pairs = sum(count * (count - 1) for count in self._counts.values())
        # |sum of unit vectors|² holds each vector's cosine with itself, which is 1, besides.
        cosines = sum(float(s.square().sum()) - self._counts[k] for k, s in self._sums.items())
        return cosines, pairs


@torch.no_grad()
def rollout_accuracy(
    system: System,
    rows: Sequence[Row],
    targets: Mapping[str, str] | None = None,
    *,
    speech: Speech | None = None,
    numbers: Sequence[int] | None = None,
    links: Literal["outer", "inner"] = "outer",
    batch_size: int = 32,
) -> dict[str, float]:
    """How many message rows say the right word, after real rollouts and after teacher forcing.

    Each sender reads its prompt with texts in its slots, and rolls out for real, one latent step
    after another. A message row is right where no input embedding of the receiver is nearer to it
    (by cosine) than the right word's; a word that is several tokens of the receiver is their mean.

    Args:
        system: whose senders roll.
        rows: samples: the graph's inputs, and the texts that `targets` names.
        targets: field of a row with each agent's text; None lets the text twin speak.
        speech: what the agents say, from a loop that knows it, in place of `targets`.
        numbers: Numbers of the rows, by which `speech` keeps texts.
        links: `"outer"` judges messages; `"inner"` judges inner(h), which each sender reads itself:
            its own embeddings take the place of the receiver's, and latent steps that of message
            rows.
        batch_size: rows that roll together.

    Returns:
        `nearest_rollout` and `nearest_forced`: shares of message rows that are right, over all
        edges and rounds. `message_cosine`: mean cosine between messages of different rows, at equal
        positions; `word_cosine`: that of the words they are to say. The cosines are there from two
        rows on.
    """
    speech = speech or Speech(system, targets)
    uses = list(speech.uses)
    if links == "inner":  # an agent thinks the same for all that hear it
        uses = list({(use.edge.source, use.round): use for use in uses}.values())
    gauges = [(use, _Gauge()) for use in uses]
    for begin in range(0, len(rows), batch_size):
        part = slice(begin, begin + batch_size)
        own = None if numbers is None else numbers[part]
        _look(speech, rows[part], own, gauges, links)
    return _summary([gauge for _, gauge in gauges])


def warn_of_drift(
    found: Mapping[str, float], plan: Plan, links: Literal["outer", "inner"] = "outer"
) -> None:
    """Warn where rollouts lose the words that teacher forcing finds, or messages are all alike.

    A team whose inner links have no weights is not told that they drift: other words than the given
    ones are then the model's own choice.

    Args:
        found: Result of `rollout_accuracy`.
        plan: Plan of the team.
        links: Value of `links` that `rollout_accuracy` was called with.
    """
    what, rows = ("latents", "steps") if links == "inner" else ("messages", "rows")
    learns = any(link.role == "inner" and link.n_parameters for link in plan.links)
    forced, rollout = found.get("nearest_forced", 0.0), found.get("nearest_rollout", 0.0)
    if learns and forced - rollout > PARTED:
        log.warning(
            "%s say the right word in %.0f %% of %s after teacher forcing, but in %.0f %% after "
            "real rollouts: links drift when they read their own outputs; train with the rollout "
            "loop, for longer or with more passes, or use soft_token links",
            what,
            100 * forced,
            rows,
            100 * rollout,
        )
    alike, words = found.get("message_cosine", 0.0), found.get("word_cosine", 0.0)
    if alike > COLLAPSED > words:
        log.warning(
            "%s of different rows have a mean cosine of %.2f, though the words that they are to "
            "say have %.2f: they carry next to nothing about their row; %s",
            what,
            alike,
            words,
            "train the inner and edge loops for longer, or at a lower rate"
            if learns
            else "ask the senders for what differs, or lower the temperature of their links",
        )


def _look(
    speech: Speech,
    rows: Sequence[Row],
    numbers: Sequence[int] | None,
    gauges: Sequence[tuple[Use, _Gauge]],
    links: str,
) -> None:
    """Add a batch to the gauges."""
    said = speech.speak(rows, numbers)
    states: dict[tuple[str, int], _States | None] = {}
    for use, gauge in gauges:
        turn = use.edge.source, use.round
        if turn not in states:
            texts = [speech.ids(*turn, text_messages) for text_messages in said]
            states[turn] = _roll(speech, use, rows, said, texts) if any(texts) else None
        if (found := states[turn]) is not None:
            _measure(speech.system, use, found, gauge, links)


class _States(NamedTuple):
    """What a sender's turn brings."""

    forced_BKD: Tensor
    rollout_BKD: Tensor
    ids_BK: Tensor
    real_BK: Tensor


def _roll(
    speech: Speech,
    use: Use,
    rows: Sequence[Row],
    said: Sequence[Mapping[tuple[str, int], str]],
    texts: Sequence[Sequence[int]],
) -> _States:
    system, agent = speech.system, use.edge.source
    backbone, inner = system.backbone_of(agent), system.link(use.inner)
    prompt = speech.prompt(agent, use.round, rows, said)
    ids_BK, real_BK = padded_ids(backbone, texts)
    forced_BKD = PassReader(backbone, prompt, real_BK).read(backbone.embed(ids_BK[:, :-1]))
    executor = executors.get("cached")()
    rollout_BKD = executor.rollout(backbone, inner, prompt, ids_BK.shape[1])
    return _States(forced_BKD, rollout_BKD, ids_BK, real_BK)


def _measure(system: System, use: Use, states: _States, gauge: _Gauge, links: str) -> None:
    sender = system.backbone_of(use.edge.source)
    receiver = sender if links == "inner" else system.backbone_of(use.edge.target)
    inner, outer = system.link(use.inner), system.link(use.link)
    real_BK = states.real_BK
    words_ND = as_read(sender, receiver, states.ids_BK[real_BK])
    gauge.rows += len(words_ND)
    for name, h_BKD in (("forced", states.forced_BKD), ("rollout", states.rollout_BKD)):
        if links == "inner":
            message_BKD = inner.apply_to(h_BKD)
        else:
            read_BKD = h_BKD if "states" in outer.needs else inner.apply_to(h_BKD)
            message_BKD = outer.apply_to(read_BKD)
        gauge.right[name] += int(_right(message_BKD[real_BK], words_ND, receiver).sum())
    gauge.messages.add(message_BKD, real_BK)
    words_BKD = torch.zeros_like(message_BKD)
    words_BKD[real_BK] = words_ND.to(words_BKD)
    gauge.words.add(words_BKD, real_BK)


def _right(message_ND: Tensor, words_ND: Tensor, receiver: LoadedBackbone) -> Tensor:
    """Whether no input embedding of the receiver is nearer to a row than the right word, (N)."""
    exact = torch.promote_types(message_ND.dtype, torch.float32)
    unit_ND = F.normalize(message_ND.to(receiver.device, exact), dim=-1)
    own_N = (unit_ND * F.normalize(words_ND.to(unit_ND), dim=-1)).sum(dim=-1)
    best_N = torch.full_like(own_N, -1.0)
    count = receiver.model.get_input_embeddings().weight.shape[0]
    for ids_V in torch.arange(count).split(max(1, AT_ONCE // max(1, len(unit_ND)))):
        table_VD = F.normalize(receiver.embed(ids_V).to(unit_ND), dim=-1)
        best_N = torch.maximum(best_N, (unit_ND @ table_VD.T).amax(dim=-1))
    return own_N >= best_N - ROUNDING


def _summary(gauges: Sequence[_Gauge]) -> dict[str, float]:
    """Means over all edges and rounds; nothing of what was not seen."""
    found: dict[str, float] = {}
    rows = sum(gauge.rows for gauge in gauges)
    if rows:
        for name in ("rollout", "forced"):
            found[f"nearest_{name}"] = sum(gauge.right[name] for gauge in gauges) / rows
    for name, own in (("message", "messages"), ("word", "words")):
        totals = [getattr(gauge, own).total() for gauge in gauges]
        if pairs := sum(count for _, count in totals):
            found[f"{name}_cosine"] = sum(cosines for cosines, _ in totals) / pairs
    return found
