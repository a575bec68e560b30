"""Means with intervals, and a linear probe that is tested on rows that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["Mean", "Probe", "mean_of", "probe"]

DRAWS = 4000
FOLDS, PERMUTATIONS, RIDGE = 5, 100, 0.1


@dataclass(frozen=True)
class Mean:
    """A mean over questions, with a 95 % interval from a bootstrap over questions."""

    mean: float
    """The mean."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: int
    """Number of questions."""

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies above or below zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def text(self, form: str = "+.3f") -> str:
        """The mean and its interval."""
        return f"{self.mean:{form}} ({self.low:{form}} to {self.high:{form}})"


def mean_of(values: Sequence[float] | np.ndarray, *, seed: int = 0) -> Mean:
    """The mean of one value for each question."""
    own = np.asarray(values, dtype=float)
    draw = np.random.default_rng(seed)
    drawn = draw.multinomial(len(own), np.full(len(own), 1 / len(own)), size=DRAWS)
    low, high = np.quantile(drawn @ own / len(own), [0.025, 0.975])
    return Mean(float(own.mean()), float(low), float(high), len(own))


@dataclass(frozen=True)
class Probe:
    """How well a linear probe predicts a class, on questions that it was not fitted to."""

    right: int
    """Number of questions that it predicts rightly."""
    n: int
    """Number of questions."""
    classes: int
    """Number of classes."""
    chance: float
    """Share of the largest class: what one gets without looking."""
    shuffled: float
    """Mean accuracy of probes of shuffled classes: the control."""
    p_value: float
    """Share of these that are at least as accurate, itself counted among them."""

    @property
    def accuracy(self) -> float:
        """Share of questions that it predicts rightly."""
        return self.right / self.n


def probe(x_ND: np.ndarray, labels: Sequence[str], *, seed: int = 0) -> Probe | None:
    """Cross-validated ridge regression to classes, with shuffled classes as the control.

    Args:
        x_ND: features of N questions.
        labels: N classes; questions whose class occurs once are left out, as no fold could learn
            it.
        seed: seed of the folds and permutations.

    Returns:
        The probe; None with fewer than two classes, or fewer questions than folds.
    """
    counts = {label: list(labels).count(label) for label in labels}
    kept = [i for i, label in enumerate(labels) if counts[label] > 1]
    names = sorted({labels[i] for i in kept})
    if len(names) < 2 or len(kept) < FOLDS:
        return None
    draw = np.random.default_rng(seed)
    y_N = np.array([names.index(labels[i]) for i in kept])
    folds = _folds(y_N, draw)
    predict = [_fitted(np.asarray(x_ND, dtype=float)[kept], folds == fold) for fold in range(FOLDS)]

    def right(classes_N: np.ndarray) -> int:
        onehot_NC = np.eye(len(names))[classes_N]
        hits = 0
        for fold, weights in enumerate(predict):
            test = folds == fold
            if test.any():
                train_NC = onehot_NC[~test]
                middle_C = train_NC.mean(axis=0)
                scores = weights @ (train_NC - middle_C) + middle_C
                hits += int((scores.argmax(axis=1) == classes_N[test]).sum())
        return hits

    own = right(y_N)
    others = [right(draw.permutation(y_N)) for _ in range(PERMUTATIONS)]
    return Probe(
        right=own,
        n=len(kept),
        classes=len(names),
        chance=float(np.bincount(y_N).max() / len(kept)),
        shuffled=float(np.mean(others) / len(kept)),
        p_value=(1 + sum(other >= own for other in others)) / (1 + PERMUTATIONS),
    )


def _folds(y_N: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Fold of each question: every class is spread over the folds."""
    folds = np.empty(len(y_N), dtype=int)
    order = draw.permutation(len(y_N))
    order = order[np.argsort(y_N[order], kind="stable")]
    folds[order] = np.arange(len(y_N)) % FOLDS
    return folds


def _fitted(x_ND: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Matrix from classes of the other questions to scores of the tested: ridge in its dual form.

    Features are centred, and the ridge is set, by the other questions alone.
    """
    train = x_ND[~test]
    middle = train.mean(axis=0)
    a, b = train - middle, x_ND[test] - middle
    gram = a @ a.T
    ridge = RIDGE * max(float(np.trace(gram)) / len(a), 1e-12)
    return np.linalg.solve(gram + ridge * np.eye(len(a)), a @ b.T).T
