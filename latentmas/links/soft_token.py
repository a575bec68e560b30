"""A link through the vocabulary: a state's next-token distribution as one embedding."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentmas.links._base import Link, LinkBackbone, LinkOptions, zero_
from latentmas.links._options import SoftTokenOptions, resolve_soft_token
from latentmas.links._pieces import Pieces, find_pieces, same_vocabulary
from latentmas.links._registry import link_kinds

__all__ = ["SoftToken"]

AT_ONCE = 2**25
"""Maximum number of logits (rows times vocabulary) computed at once."""


class _Attached(NamedTuple):
    """The backbones of a link, hidden from `nn.Module` and not copied with the link."""

    source: LinkBackbone
    target: LinkBackbone
    pieces: Pieces | None
    """The sender's tokens in the receiver's vocabulary; None if they share one."""

    def __deepcopy__(self, memo: Any) -> _Attached:
        return self


class _Correction(nn.Module):
    """LayerNorm → Linear → GELU → Linear, the branch of `recursive`; initially zero."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(width)
        self.proj1 = nn.Linear(width, expansion * width)
        self.activation = nn.GELU()
        self.proj2 = nn.Linear(expansion * width, width)
        zero_(self.proj2)

    def forward(self, x_BKD: Tensor) -> Tensor:
        """`(…, D)` to `(…, D)`."""
        out: Tensor = self.proj2(self.activation(self.proj1(self.norm_in(x_BKD))))
        return out


@link_kinds.register("soft_token")
class SoftToken(Link):
    """Mixes the receiver's input embeddings with the sender's next-token distribution as weights.

    softmax(head(h) / temperature) · E: E is the sender's own embedding table for an inner link. For
    an outer link, row v of E is the receiver's mean embedding of the text of the sender's token v;
    end-of-turn tokens are mapped to each other. No training is needed, and rollouts do not drift.
    The row of a state whose most likely token ends the sender's turn, and the rows after it, are
    hidden from the receiver.

    Reference: Soft Thinking (arXiv 2505.15778); the correction has the shape of RecursiveMAS
    (arXiv 2604.25917).

    Inputs: h_BKS, raw states after the final norm (outer links read them too, not inner(h)).
    Output: h_BKD in the receiver's embedding space.

    The default kind. An edge has the correction unless `residual=False`; an inner link has none
    unless `residual=True`.

    Relations: `text` sends one token per row where this kind mixes all; `recursive` needs training
    but no vocabulary.

    Example: `graph.connect("a", "b", link="soft_token", temperature=0.5)`
    """

    Options = SoftTokenOptions
    needs = frozenset({"head", "embeddings", "tokenizer", "states"})
    shortens = True
    prepares = True

    def __init__(self, options: SoftTokenOptions, in_dim: int, out_dim: int) -> None:
        super().__init__(options, in_dim, out_dim)
        self.temperature, self.top_k = options.temperature, options.top_k
        self.correction = _Correction(out_dim, options.expansion) if options.residual else None
        self._attached: _Attached | None = None

    @classmethod
    def resolve(cls, role: str, options: dict[str, Any], in_dim: int, out_dim: int) -> LinkOptions:
        """Fill in `residual`: a correction on edges, none inside agents."""
        return resolve_soft_token(role, options, in_dim, out_dim)

    def attach(self, source: LinkBackbone, target: LinkBackbone) -> None:
        """Store the backbones; map the sender's tokens if the receiver's vocabulary differs.

        Raises:
            WeightsError: They share a vocabulary, and the receiver's embeddings are not a table.
        """
        pieces, end = None, target.turn_end_id
        if not same_vocabulary(source.tokenizer, target.tokenizer):
            ends = dict.fromkeys(source.stop_ids, end) if end is not None else {}
            pieces = find_pieces(source.tokenizer, target.tokenizer, ends)
        else:  # build the table at load rather than in the first run
            target.mix_embeddings(torch.ones(1, 1))
        self._attached = _Attached(source, target, pieces)

    def forward(self, h_BKS: Tensor) -> Tensor:
        """`(…, S)` to `(…, D)`."""
        return self._corrected(self._rows(h_BKS)[0])

    def prepare(self, h_BKS: Tensor) -> Tensor:
        """The mixtures, `(B, K, S)` to `(B, K, D)`: all computation over the vocabulary.

        The row that ends the turn and those after it are zero.
        """
        given = h_BKS if self.dtype is None else h_BKS.to(self.dtype)
        x_BKD, ends_BK = self._rows(given)
        open_BK = ends_BK.long().cumsum(dim=-1) == 0
        return x_BKD * open_BK[..., None].to(x_BKD.device, x_BKD.dtype)

    def finish(self, z_BKD: Tensor) -> Tensor:
        """Mixtures plus their correction; rows of zeros stay zero."""
        open_BK1 = (z_BKD.detach() != 0).any(dim=-1, keepdim=True)
        x_BKD = self._corrected(z_BKD)
        return x_BKD * open_BK1.to(x_BKD.device, x_BKD.dtype)

    def _corrected(self, x_BKD: Tensor) -> Tensor:
        if self.correction is None:
            return x_BKD
        x_BKD = x_BKD.to(self.correction.proj2.weight.device)
        return x_BKD + self.correction(x_BKD)

    def _rows(self, h_BKS: Tensor) -> tuple[Tensor, Tensor]:
        """Mixtures without correction, and whether each row's most likely token ends the turn."""
        source, vocabulary = self._parts.source, _vocabulary(self._parts.source)
        h_NS = h_BKS.reshape(-1, self.in_dim).to(source.device, source.dtype)
        rows, ends = list[Tensor](), list[Tensor]()
        for part in h_NS.split(max(1, AT_ONCE // len(vocabulary.known_V))):
            logits_NV = source.logits(part)[:, : len(vocabulary.known_V)]
            if not vocabulary.full:
                logits_NV = logits_NV.masked_fill(~vocabulary.known_V, -torch.inf)
            rows.append(self._mixed(logits_NV))
            ends.append(_any_of(logits_NV.argmax(dim=-1), source.stop_ids))
        x_BKD = torch.cat(rows).view(*h_BKS.shape[:-1], self.out_dim).to(h_BKS.dtype)
        return x_BKD, torch.cat(ends).view(h_BKS.shape[:-1])

    def _mixed(self, logits_NV: Tensor) -> Tensor:
        """Mixtures of the receiver's embeddings, (N, D); the softmax is in fp32 or better."""
        parts = self._parts
        logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
        if self.top_k is not None and self.top_k < logits_NV.shape[1]:
            top = logits_NV.topk(self.top_k)
            p_NC = (top.values / self.temperature).softmax(dim=-1)
            ids_NC = top.indices.to(parts.target.device)
            table_VD = _table(parts)
            e_NCD = parts.target.embed(ids_NC) if table_VD is None else table_VD[ids_NC]
            return (p_NC.to(e_NCD.device, e_NCD.dtype)[:, None] @ e_NCD)[:, 0]
        p_NV = (logits_NV / self.temperature).softmax(dim=-1)
        table_VD = _table(parts)
        if table_VD is None:
            return parts.target.mix_embeddings(p_NV)
        return p_NV.to(table_VD.device, table_VD.dtype) @ table_VD

    @property
    def _parts(self) -> _Attached:
        if self._attached is None:
            raise ValueError("a soft_token link works inside a loaded System, which attaches it")
        return self._attached


class _Vocabulary(NamedTuple):
    known_V: Tensor
    """Mask of logits that belong to tokens of the tokenizer; models pad their vocabularies."""
    full: bool


def _vocabulary(backbone: LinkBackbone) -> _Vocabulary:
    """Cached in the backbone's workspace, so that a captured CUDA graph allocates nothing."""
    key = "soft_token", "vocabulary"
    if key not in backbone.workspace:
        ids = torch.tensor(sorted(backbone.tokenizer.get_vocab().values()))
        scores = backbone.logits(backbone.embed(ids[:1]))
        ids = ids[ids < scores.shape[-1]]
        known_V = torch.zeros(int(ids.max()) + 1, dtype=torch.bool)
        known_V[ids] = True
        full = bool(known_V.all())
        backbone.workspace[key] = _Vocabulary(known_V.to(backbone.device), full)
    found: _Vocabulary = backbone.workspace[key]
    return found


@torch.no_grad()
def _table(parts: _Attached) -> Tensor | None:
    """The receiver's embedding of each token of the sender, (V, D); None if tokens are shared.

    All links between the two share one table, which is kept in the receiver's workspace.
    """
    if parts.pieces is None:
        return None
    target, pieces = parts.target, parts.pieces
    key = "soft_token", pieces.digest
    if key not in target.workspace:
        size = len(_vocabulary(parts.source).known_V)
        counts_V = pieces.counts_V.long()
        first_V = counts_V.cumsum(0) - counts_V
        width = target.embed(torch.zeros(1, dtype=torch.long)).shape[-1]
        exact = torch.promote_types(target.dtype, torch.float32)
        sums_VD = torch.zeros(len(counts_V), width, device=target.device, dtype=exact)
        # Add piece by piece, each row at most once per step, so that the order of summation is
        # fixed on every device.
        for place in range(int(counts_V.max())):
            rows = (counts_V > place).nonzero()[:, 0]
            ids = pieces.ids_N.long()[first_V[rows] + place]
            sums_VD[rows.to(target.device)] += target.embed(ids).to(exact)
        mean_VD = sums_VD / counts_V.clamp_min(1)[:, None].to(target.device)
        target.workspace[key] = mean_VD[:size].to(target.dtype)
    found: Tensor = target.workspace[key]
    return found


def _any_of(ids_N: Tensor, wanted: Collection[int]) -> Tensor:
    """Whether each id is in a small set; does not synchronise with the device."""
    found = torch.zeros_like(ids_N, dtype=torch.bool)
    for id in wanted:
        found |= ids_N == id
    return found
