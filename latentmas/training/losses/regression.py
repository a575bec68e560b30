"""Regression of states to input embeddings: what the inner and the edge loop have in common.

Shapes: `D` width, `N` pairs of a state and the embedding that it is to become.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from latentmas.backbones import LoadedBackbone
from latentmas.engine import Packed
from latentmas.training.losses.teacher_forcing import teacher_force

__all__ = ["FeatureStore", "Features", "read_features", "regression"]


class Features(NamedTuple):
    """What one row gives a link to learn from."""

    h_ND: Tensor
    """The state before each token of a text."""
    ids_N: Tensor
    """That token."""


class FeatureStore:
    """Features by key and row, kept on the CPU up to a number of bytes; they are constant."""

    def __init__(self, most_bytes: int) -> None:
        self._room = most_bytes
        self._kept: dict[tuple[str, int], Features] = {}

    def get(
        self,
        key: str,
        numbers: Sequence[int] | None,
        size: int,
        compute: Callable[[list[int]], list[Features]],
    ) -> list[Features]:
        """Features of each row of a batch.

        Args:
            key: Key of what is read, in addition to the row.
            numbers: Numbers of the rows in the data; None keeps nothing.
            size: rows in the batch.
            compute: takes places in the batch and returns their features.
        """
        known: list[Features | None] = [None] * size
        if numbers is not None:
            known = [self._kept.get((key, number)) for number in numbers]
        new = [i for i, features in enumerate(known) if features is None]
        for i, features in zip(new, compute(new) if new else [], strict=True):
            known[i] = features
            if numbers is not None:
                self._keep((key, numbers[i]), features)
        return [features for features in known if features is not None]

    def _keep(self, key: tuple[str, int], features: Features) -> None:
        size = sum(part.numel() * part.element_size() for part in features)
        if size <= self._room:
            self._room -= size
            self._kept[key] = features


def read_features(
    backbone: LoadedBackbone, prompt: Packed, texts: Sequence[Sequence[int]]
) -> list[Features]:
    """Let a backbone read each prompt and its text.

    Args:
        backbone: reads.
        prompt: B prompts.
        texts: B lists of token ids.
    """
    taught = teacher_force(backbone, prompt, texts)
    sizes = [len(text) for text in texts]
    states, ids = taught.h_ND.cpu().split(sizes), taught.ids_N.cpu().split(sizes)
    return [Features(h.clone(), i.clone()) for h, i in zip(states, ids, strict=True)]


def mean_square(backbone: LoadedBackbone) -> float:
    """Mean square of a backbone's embeddings, over all tokens; computed once."""
    if backbone not in _MEANS:
        ids_V = torch.arange(backbone.model.get_input_embeddings().weight.shape[0])
        squares = [backbone.embed(part).double().square().mean() for part in ids_V.split(8192)]
        weights = [len(part) / len(ids_V) for part in ids_V.split(8192)]
        _MEANS[backbone] = sum(float(s) * w for s, w in zip(squares, weights, strict=True))
    return _MEANS[backbone]


_MEANS: WeakKeyDictionary[LoadedBackbone, float] = WeakKeyDictionary()


def regression(
    z_ND: Tensor, e_ND: Tensor, scale: float, *, cosine_weight: float, mse_weight: float
) -> Any:
    """Sum over pairs of `cosine_weight · (1 − cos) + mse_weight · (squared error) / scale`.

    Args:
        z_ND: what links have made.
        e_ND: the embeddings that it is to become.
        scale: mean square of the backbone's embeddings: no batch's own, so that the sum over two
            batches is that over both.
        cosine_weight: Weight of 1 - cosine.
        mse_weight: Weight of the mean squared error of a pair.
    """
    e_ND = e_ND.to(z_ND.device, z_ND.dtype)
    loss = cosine_weight * (1 - F.cosine_similarity(z_ND, e_ND, dim=-1)).sum()
    if mse_weight:
        squares = (z_ND - e_ND).square().mean(dim=-1).sum()
        loss = loss + mse_weight * squares / scale
    return loss
