"""Metrics over several answers per row: pass@k, maj@k, any of n."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Sampled", "majority_at", "pass_at", "sampling_metrics"]

DRAWS = 200
"""Number of random subsets per row from which maj@k is estimated, for k below the number of
answers."""


class Sampled(NamedTuple):
    """The answers of one row, in the order in which they were drawn."""

    right: Sequence[bool]
    groups: Sequence[int]
    """For each answer, the number of the first one that says the same."""


def pass_at(k: int, right: int, answers: int) -> float:
    """Probability that at least one of k answers, drawn without replacement, is correct.

    This is the unbiased estimate of Chen et al. (2021, arXiv 2107.03374):
    1 - C(n - c, k) / C(n, k).

    Args:
        k: number of answers to draw, 1 to `answers`.
        right: number of correct answers, c.
        answers: number of answers, n.

    Raises:
        ValueError: a number is out of range.
    """
    if not 1 <= k <= answers or not 0 <= right <= answers:
        raise ValueError(
            f"expected k from 1 to {answers} and right from 0 to {answers}, not {k} and {right}"
        )
    return 1 - math.comb(answers - right, k) / math.comb(answers, k)


def majority_at(k: int, row: Sampled, *, seed: int = 0) -> float:
    """Probability that the most frequent of k answers is correct (maj@k, self-consistency).

    Of equally frequent answers, the one drawn first counts. For k equal to the number of answers
    this is 0 or 1; for smaller k it is estimated from `DRAWS` random subsets.

    Args:
        k: number of answers to draw, 1 to all.
        row: the answers.
        seed: random seed of the subsets.

    Raises:
        ValueError: k is out of range.
    """
    count = len(row.groups)
    if not 1 <= k <= count:
        raise ValueError(f"expected k from 1 to {count}, not {k}")
    if k == count:
        return float(_majority_is_right(row, range(count)))
    drawn = np.random.default_rng(seed)
    subsets = (drawn.permutation(count)[:k].tolist() for _ in range(DRAWS))
    return sum(_majority_is_right(row, subset) for subset in subsets) / DRAWS


def _majority_is_right(row: Sampled, drawn: Sequence[int]) -> bool:
    groups = [row.groups[i] for i in drawn]
    winner = max(groups, key=groups.count)  # the first of equals, as `max` keeps it
    return bool(row.right[drawn[groups.index(winner)]])


def sampling_metrics(rows: Sequence[Sampled]) -> dict[str, float]:
    """pass@k and maj@k over rows, for k = 2, 4, 8, … and all answers; empty for single answers.

    A row without answers counts as wrong. `"any of n"` is the share of rows with a correct answer
    among all, as the published evaluation counts ("pass@10" there).

    Args:
        rows: the answers of each row.
    """
    most = max((len(row.right) for row in rows), default=0)
    if most < 2:
        return {}
    sizes = sorted({*(1 << i for i in range(1, most.bit_length()) if 1 << i < most), most})
    found = {f"pass@{k}": _mean([_pass(k, row) for row in rows]) for k in (1, *sizes)}
    for k in sizes:
        shares = [_majority(k, row, number) for number, row in enumerate(rows)]
        found[f"maj@{k}"] = _mean(shares)
    return found | {f"any of {most}": _mean([float(any(row.right)) for row in rows])}


def _pass(k: int, row: Sampled) -> float:
    count = len(row.right)
    return pass_at(min(k, count), sum(row.right), count) if count else 0.0


def _majority(k: int, row: Sampled, seed: int) -> float:
    count = len(row.right)
    return majority_at(min(k, count), row, seed=seed) if count else 0.0


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
