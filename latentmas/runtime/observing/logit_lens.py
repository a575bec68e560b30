"""What latents are near to: tokens by the vocabulary head, tokens by the input embeddings.

Shapes: `N` rows, `D` width, `V` vocabulary, `C` tokens of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentmas.backbones import LoadedBackbone

__all__ = ["Near", "nearest_embeddings", "nearest_ids", "nearest_outputs"]

Near = list[tuple[str, float]]
"""Tokens, nearest first, with probability or cosine."""
ROWS, CHUNK = 64, 16_384


@torch.no_grad()
def nearest_outputs(backbone: LoadedBackbone, h_ND: Tensor, count: int) -> list[Near]:
    """The logit lens: likeliest next tokens after states, with their probabilities.

    Args:
        backbone: whose states.
        h_ND: states after the final norm.
        count: tokens for each row.
    """
    found = []
    for rows_RD in h_ND.to(backbone.device, backbone.dtype).split(ROWS):
        logits_RV = backbone.logits(rows_RD).float()[:, : backbone.planned.info.vocab_size]
        top = logits_RV.softmax(dim=-1).topk(min(count, logits_RV.shape[1]))
        found += _named(backbone, top.indices, top.values)
    return found


@torch.no_grad()
def nearest_embeddings(backbone: LoadedBackbone, x_ND: Tensor, count: int) -> list[Near]:
    """Tokens whose input embeddings point most nearly where rows point, with the cosines.

    Args:
        backbone: whose embeddings.
        x_ND: rows in the space of its input embeddings, messages say.
        count: tokens for each row.
    """
    return _named(backbone, *nearest_ids(backbone, x_ND, count))


@torch.no_grad()
def nearest_ids(backbone: LoadedBackbone, x_ND: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Ids of these tokens and their cosines, both (N, C); arguments as `nearest_embeddings`."""
    size = backbone.planned.info.vocab_size
    unit_ND = torch.nn.functional.normalize(x_ND.to(backbone.device).float(), dim=-1)
    best_NC = unit_ND.new_empty(len(unit_ND), 0)
    ids_NC = torch.empty(len(unit_ND), 0, dtype=torch.long, device=unit_ND.device)
    for start in range(0, size, CHUNK):
        ids_C = torch.arange(start, min(start + CHUNK, size), device=unit_ND.device)
        embeddings_CD = torch.nn.functional.normalize(backbone.embed(ids_C).float(), dim=-1)
        best_NC = torch.cat([best_NC, unit_ND @ embeddings_CD.T], dim=1)
        ids_NC = torch.cat([ids_NC, ids_C.expand(len(unit_ND), -1)], dim=1)
        best_NC, order = best_NC.topk(min(count, best_NC.shape[1]))
        ids_NC = ids_NC.gather(1, order)
    return ids_NC, best_NC


def _named(backbone: LoadedBackbone, ids_NC: Tensor, values_NC: Tensor) -> list[Near]:
    names = {id: _name(backbone, id) for id in set(ids_NC.flatten().tolist())}
    rows = zip(ids_NC.tolist(), values_NC.tolist(), strict=True)
    return [
        [(names[id], value) for id, value in zip(ids, values, strict=True)] for ids, values in rows
    ]


def _name(backbone: LoadedBackbone, id: int) -> str:
    """A token as text; one that is part of a character only, as its vocabulary writes it."""
    text = str(backbone.tokenizer.decode([id]))
    if not text or "\ufffd" in text:
        text = str(backbone.tokenizer.convert_ids_to_tokens(id))
    return text
