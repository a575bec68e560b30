"""What messages say: the tokens nearest to them, and what a linear probe reads in them.

Shapes: `N` questions, `K` message rows, `D` width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from latentmas.evaluation import wilson
from latentmas.runtime.observing.logit_lens import nearest_ids
from latentmas.studies.analyses import analyses
from latentmas.studies.analyses._base import (
    Analysis,
    Curves,
    Finding,
    Material,
    Message,
    answer_tokens,
)
from latentmas.studies.analyses._statistics import Mean, Probe, mean_of, probe
from latentmas.studies.tabulate import Sheet

__all__ = ["Meaning"]

NEAREST = 5
SHOWN = 3
"""Number of questions whose nearest tokens are shown."""
FOUND = ("edge", "round", "answer among tokens", "other answers", "difference", "n")
PROBED = ("edge", "round", "probe", "shuffled labels", "chance", "p", "classes", "n")
SAID = ("question", "edge", "round", "answer", "nearest token of each row")
FOUND_NOTE = (
    f"Share of questions all of whose answer's tokens are among the {NEAREST} nearest to the "
    "message's rows (by cosine, in the receiver's input embeddings), with Wilson's 95 % interval. "
    "Other answers: the same for answers of other questions, the control. Difference: with an "
    "interval over questions."
)
PROBE_NOTE = (
    "Probe: share of questions whose answer ridge regression predicts from the message's rows, "
    "fitted to other questions (five folds), with Wilson's 95 % interval. Shuffled labels: mean of "
    "100 probes of shuffled answers, the control; p: share of these that do as well. Chance: share "
    "of the commonest answer. Answers that occur once are left out."
)


@dataclass(frozen=True)
class _Read:
    """What a message says."""

    message: Message
    own_N: np.ndarray
    """Whether the answer is among the nearest tokens."""
    others_N: np.ndarray
    """Share of the other questions' answers that are."""
    probed: Probe | None
    said: Sequence[str]
    """Nearest token of each row, for the first questions."""

    @property
    def place(self) -> tuple[str, str]:
        """Edge and round."""
        return self.message.edge, str(self.message.step.round)

    def difference(self, seed: int) -> Mean:
        """Own answers less those of others."""
        return mean_of(self.own_N - self.others_N, seed=seed)


@analyses.register("meaning")
class Meaning(Analysis):
    """Nearest tokens and linear probes of messages."""

    title = "What messages say"
    summary = "Tokens nearest to messages, and linear probes of the answer in them."

    @staticmethod
    @torch.no_grad()
    def run(material: Material) -> Finding:
        """Read all messages."""
        found = [_read(message, material) for message in material.messages]
        probed = [_probed(one, one.probed) for one in found if one.probed is not None]
        return Finding(
            name="meaning",
            title=Meaning.title,
            verdict=list(_verdict(found, material.seed)),
            sheets={
                "Answers among the nearest tokens": Sheet(
                    FOUND, [_found(one, material.seed) for one in found], (FOUND_NOTE,), words=2
                ),
                **(
                    {"A linear probe of the answer": Sheet(PROBED, probed, (PROBE_NOTE,), words=2)}
                    if probed
                    else {}
                ),
                "Nearest tokens": Sheet(SAID, _said(found, material), words=5),
            },
            curves=_curves(found),
            data={"messages": [_plain(one, material.seed) for one in found]},
        )


def _read(message: Message, material: Material) -> _Read:
    x_NKD, sent_NK = message.x_NKD, message.sent()
    count, rows, _ = x_NKD.shape
    ids, _ = nearest_ids(message.receiver, x_NKD.flatten(end_dim=1), NEAREST)
    ids_NKC = ids.view(count, rows, -1).cpu()
    near = [set(own[sent].flatten().tolist()) for own, sent in zip(ids_NKC, sent_NK, strict=True)]
    ways = {answer: answer_tokens(message.receiver, answer) for answer in set(material.answers)}

    def says(answer: str, tokens: set[int]) -> bool:
        return any(tokens.issuperset(way) for way in ways[answer])

    own_N = [says(answer, tokens) for answer, tokens in zip(material.answers, near, strict=True)]
    others_N = []
    for answer, tokens in zip(material.answers, near, strict=True):
        others = [other for other in material.answers if other != answer]
        others_N.append(np.mean([says(o, tokens) for o in others]) if others else 0.0)
    tokenizer = message.receiver.tokenizer
    said = [
        " ".join(
            str(tokenizer.decode([int(id)])).strip() or "␣" for id in ids_KC[sent_K][:, 0].tolist()
        )
        for ids_KC, sent_K in zip(ids_NKC[:SHOWN], sent_NK[:SHOWN], strict=True)
    ]
    features = x_NKD.flatten(start_dim=1).double().numpy()
    return _Read(
        message,
        np.array(own_N, dtype=float),
        np.array(others_N, dtype=float),
        probe(features, material.answers, seed=material.seed),
        said,
    )


def _found(one: _Read, seed: int) -> tuple[str, ...]:
    low, high = wilson(float(one.own_N.mean()), len(one.own_N))
    return (
        *one.place,
        f"{one.own_N.mean():.3f} ({low:.3f} to {high:.3f})",
        f"{one.others_N.mean():.3f}",
        one.difference(seed).text(),
        str(len(one.own_N)),
    )


def _probed(one: _Read, p: Probe) -> tuple[str, ...]:
    low, high = wilson(p.accuracy, p.n)
    return (
        *one.place,
        f"{p.accuracy:.3f} ({low:.3f} to {high:.3f})",
        *(f"{value:.3f}" for value in (p.shuffled, p.chance, p.p_value)),
        str(p.classes),
        str(p.n),
    )


def _said(found: Sequence[_Read], material: Material) -> list[tuple[str, ...]]:
    return [
        (str(number), *one.place, material.answers[number], text)
        for number in range(min(SHOWN, len(material.answers)))
        for one in found
        for text in [one.said[number]]
    ]


def _verdict(found: Sequence[_Read], seed: int) -> Iterator[str]:
    """A sentence for each message."""
    for one in found:
        edge, number = one.place
        difference = one.difference(seed)
        words = {1: "more often than", -1: "less often than", 0: "not shown to differ from"}
        told = (
            f"{edge}, round {number}: the answer is among the {NEAREST} nearest tokens for "
            f"{one.own_N.mean():.1%} of {len(one.own_N)} questions, "
            f"{words[difference.sign]} other answers ({one.others_N.mean():.1%})"
        )
        if one.probed is None:
            yield f"{told}; too few answers occur twice for a probe."
            continue
        p = one.probed
        low, high = wilson(p.accuracy, p.n)
        yield (
            f"{told}; a probe predicts {p.accuracy:.1%} ({low:.1%} to {high:.1%}) of {p.n} answers "
            f"out of {p.classes}, and {p.shuffled:.1%} with shuffled labels (p {p.p_value:.2f})."
        )


def _curves(found: Sequence[_Read]) -> list[Curves]:
    near: dict[str, list[tuple[float, float]]] = {}
    probes: dict[str, list[tuple[float, float]]] = {}
    for one in found:
        edge, number = one.message.edge, one.message.step.round
        for name, values in (("own", one.own_N), ("others", one.others_N)):
            near.setdefault(f"{edge}, {name}", []).append((number, float(values.mean())))
        if one.probed is not None:
            for name, value in (("probe", one.probed.accuracy), ("shuffled", one.probed.shuffled)):
                probes.setdefault(f"{edge}, {name}", []).append((number, value))
    charts = [Curves("Answers among the nearest tokens", near, "share of questions")]
    if probes:
        charts.append(Curves("A linear probe of the answer", probes, "share of questions"))
    return charts


def _plain(one: _Read, seed: int) -> dict[str, object]:
    p = one.probed
    return {
        "edge": one.message.edge,
        "round": one.message.step.round,
        "own": float(one.own_N.mean()),
        "interval": list(wilson(float(one.own_N.mean()), len(one.own_N))),
        "others": float(one.others_N.mean()),
        "difference": one.difference(seed).to_dict(),
        "probe": None
        if p is None
        else {**vars(p), "accuracy": p.accuracy, "interval": list(wilson(p.accuracy, p.n))},
        "said": list(one.said),
    }
