"""How near messages are to the correct answer, by edge and round, against other answers.

Shapes: `N` questions, `K` message rows, `A` tokens of an answer, `D` width, `U` different answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentmas.backbones import LoadedBackbone
from latentmas.errors import DataError
from latentmas.studies.analyses import analyses
from latentmas.studies.analyses._base import (
    Analysis,
    Curves,
    Finding,
    Material,
    Message,
    answer_tokens,
)
from latentmas.studies.analyses._statistics import Mean, mean_of
from latentmas.studies.tabulate import Sheet

__all__ = ["Distances"]

MEASURES = ("cosine", "distance")
HEAD = ("edge", "round", "measure", "own answer", "other answers", "difference", "n")
NOTE = (
    "Cosine: for each token of the answer the largest cosine with a message row, averaged over "
    "tokens. Distance: the smallest Euclidean distance, over the mean norm of the receiver's "
    "embeddings. Other answers: those of the other questions, the shuffled control. Difference: "
    "own minus other answers, question by question, with a 95 % interval."
)


@dataclass(frozen=True)
class _Measured:
    """One measure of one message: a number for each question."""

    edge: str
    round: int
    measure: str
    own_N: np.ndarray
    others_N: np.ndarray

    def difference(self, seed: int) -> Mean:
        """Own minus other answers."""
        return mean_of(self.own_N - self.others_N, seed=seed)

    @property
    def nearer(self) -> int:
        """Sign of a difference that means nearer to the own answer."""
        return 1 if self.measure == "cosine" else -1


@analyses.register("distances")
class Distances(Analysis):
    """Distances of messages to the correct answer's embeddings."""

    title = "Distance of messages to the correct answer"
    summary = "Distances of messages to the correct answer's embeddings, against other answers."

    @staticmethod
    @torch.no_grad()
    def run(material: Material) -> Finding:
        """Measure all messages.

        Raises:
            DataError: all questions have the same answer, so that there is no control.
        """
        if len(set(material.answers)) < 2:
            raise DataError(
                "all questions have the same answer, so that there is no other answer to compare "
                "with; give rows with different answers"
            )
        found = [one for message in material.messages for one in _measure(message, material)]
        return Finding(
            name="distances",
            title=Distances.title,
            verdict=[*_verdict(found, material.seed), *_trends(found, material.seed)],
            sheets={Distances.title: Sheet(HEAD, _lines(found, material.seed), (NOTE,), words=3)},
            curves=[_curves(found, measure) for measure in MEASURES],
            data={"measured": [_plain(one, material.seed) for one in found]},
        )


def _measure(message: Message, material: Material) -> Iterator[_Measured]:
    """Both measures of a message against all answers."""
    answers = list(dict.fromkeys(material.answers))
    place_N = [answers.index(answer) for answer in material.answers]
    values_MNU = _against(message, answers)
    same_NU = np.eye(len(answers), dtype=bool)[place_N]
    counts_U = np.bincount(place_N)  # an answer weighs as much as the questions that have it
    weights_NU = np.where(same_NU, 0, counts_U)
    for measure, values_NU in zip(MEASURES, values_MNU, strict=True):
        yield _Measured(
            message.edge,
            message.step.round,
            measure,
            values_NU[same_NU],
            (values_NU * weights_NU).sum(axis=1) / weights_NU.sum(axis=1),
        )


def _against(message: Message, answers: Sequence[str]) -> np.ndarray:
    """Cosine and distance of each question's message to each answer, (2, N, U)."""
    x_NKD, sent_NK = message.x_NKD.double(), message.sent()
    scale = _mean_norm(message.receiver)
    columns = []
    for answer in answers:
        ways = []
        for ids in answer_tokens(message.receiver, answer):
            e_AD = message.receiver.embed(torch.tensor(ids)).double().cpu()
            cosine_NKA = F.normalize(x_NKD, dim=-1) @ F.normalize(e_AD, dim=-1).T
            distance_NKA = torch.cdist(x_NKD, e_AD.expand(len(x_NKD), -1, -1)) / scale
            ways.append(torch.stack([_best(cosine_NKA, sent_NK), -_best(-distance_NKA, sent_NK)]))
        cosine_WN, distance_WN = torch.stack(ways, dim=1)
        columns.append(torch.stack([cosine_WN.amax(dim=0), distance_WN.amin(dim=0)]))
    return torch.stack(columns, dim=-1).numpy()


def _best(values_NKA: Tensor, sent_NK: Tensor) -> Tensor:
    """For each answer token the largest value over rows that were sent; the mean over tokens."""
    lowest = float(values_NKA.min())
    return values_NKA.masked_fill(~sent_NK[..., None], lowest).amax(dim=1).mean(dim=-1)


def _mean_norm(backbone: LoadedBackbone) -> float:
    """Mean norm of a model's input embeddings."""
    ids_V = torch.arange(backbone.planned.info.vocab_size)
    norms = [backbone.embed(part).double().norm(dim=-1) for part in ids_V.split(8192)]
    return float(torch.cat(norms).mean())


def _lines(found: Sequence[_Measured], seed: int) -> list[tuple[str, ...]]:
    return [
        (
            one.edge,
            str(one.round),
            one.measure,
            f"{one.own_N.mean():.3f}",
            f"{one.others_N.mean():.3f}",
            one.difference(seed).text(),
            str(len(one.own_N)),
        )
        for one in found
    ]


def _verdict(found: Sequence[_Measured], seed: int) -> Iterator[str]:
    """A sentence for each message, by cosine."""
    words = {1: "nearer to its own answer", -1: "nearer to other answers", 0: "no difference shown"}
    for one in found:
        if one.measure == "cosine":
            difference = one.difference(seed)
            yield (
                f"{one.edge}, round {one.round}: cosine {one.own_N.mean():.3f} to its own answer, "
                f"{one.others_N.mean():.3f} to other answers; difference {difference.text()}, "
                f"{difference.n} questions: {words[difference.sign * one.nearer]}."
            )


def _trends(found: Sequence[_Measured], seed: int) -> Iterator[str]:
    """How the difference changes from the first round of an edge to its last."""
    for edge in dict.fromkeys(one.edge for one in found):
        own = [one for one in found if one.edge == edge and one.measure == "cosine"]
        if len(own) < 2:
            continue
        first, last = own[0], own[-1]
        change = mean_of((last.own_N - last.others_N) - (first.own_N - first.others_N), seed=seed)
        words = {1: "messages approach the answer", -1: "messages move away from the answer"}
        yield (
            f"{edge}, round {first.round} to {last.round}: the difference changes by "
            f"{change.text()}: {words.get(change.sign, 'no change shown')}."
        )


def _curves(found: Sequence[_Measured], measure: str) -> Curves:
    lines: dict[str, list[tuple[float, float]]] = {}
    for one in found:
        if one.measure == measure:
            names = {"own": one.own_N, "others": one.others_N}
            for name, values_N in names.items():
                place = lines.setdefault(f"{one.edge}, {name}", [])
                place.append((one.round, float(values_N.mean())))
    title = "Cosine to the answer" if measure == "cosine" else "Distance to the answer"
    return Curves(title, lines, measure)


def _plain(one: _Measured, seed: int) -> dict[str, object]:
    return {
        "edge": one.edge,
        "round": one.round,
        "measure": one.measure,
        "own": mean_of(one.own_N, seed=seed).to_dict(),
        "others": mean_of(one.others_N, seed=seed).to_dict(),
        "difference": one.difference(seed).to_dict(),
        "own_by_question": one.own_N.tolist(),
        "others_by_question": one.others_N.tolist(),
    }
