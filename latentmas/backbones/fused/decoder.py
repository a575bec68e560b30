"""Positions of a llama-like decoder: 4 products a layer, and no module calls.

Shapes: `B` batch, `T` new positions, `P` positions of all rows (B x T), `D` width, `H` heads,
`E` width of a head, `C` columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentmas.backbones.fused.layouts import Layout
from latentmas.backbones.fused.merging import is_plain, merged_view, parts_of_layer
from latentmas.backbones.fused.norms import make_norm
from latentmas.backbones.fused.products import Product, make_product

__all__ = ["FusedDecoder", "Unfusable"]

Map = Callable[[Tensor], Tensor]
Add = Callable[[Tensor, Tensor], Tensor]


class Unfusable(Exception):
    """A decoder that has to run through its own modules; the message is the reason."""


class _Layer(NamedTuple):
    """What a step of one layer does, with all weights bound."""

    kind: str
    norm_in: Map
    qkv: Map
    norm_q: Map | None
    norm_k: Map | None
    scale: float
    attended: Add
    """Residual and attention's output to the new residual."""
    norm_mlp: Map
    gate_up: Map
    act: Map
    fed: Add
    """Residual and the MLP's inner values to the new residual."""


class _Bound:
    """The modules whose calls a step replaces, which it looks at each time."""

    def __init__(self, decoder: nn.Module, layers: list[nn.Module]) -> None:
        stack: nn.Module = decoder.layers  # type: ignore[assignment]
        parents = [decoder, stack, *(part for layer in layers for part in layer.modules())]
        embeds = getattr(decoder, "embed_tokens", None)
        self.modules = [
            child for parent in parents for child in parent.children() if child is not embeds
        ]
        # Comparing dictionaries compares the identity of modules, without a loop in Python.
        self._tables = [parent._modules for parent in parents]
        self._copies = [dict(table) for table in self._tables]
        self._hooks = [
            hooks
            for module in self.modules
            for hooks in (module._forward_hooks, module._forward_pre_hooks)
        ]

    def unchanged(self) -> bool:
        """Whether all modules are where they were, without hooks."""
        return self._tables == self._copies and not any(self._hooks)


class FusedDecoder:
    """A decoder whose merged weights are read by one product each.

    In the model's own arithmetic but for the order of additions in products and one rounding less
    at residuals. It holds the weights' storage, and no second copy of them, but where they are
    packed for the CPU (`nbytes`).
    """

    def __init__(self, decoder: nn.Module, layout: Layout, kinds: list[str]) -> None:
        """Bind the weights of a decoder that `merge_decoder` has prepared.

        Args:
            decoder: Decoder of a class that `layout` describes.
            layout: Where its parts are.
            kinds: Kind of each layer, such as `full_attention`.

        Raises:
            Unfusable: It has parts that are not ordinary, or attention with a quirk.
        """
        config: Any = decoder.config
        self._layout = layout
        self._rotary: Any = decoder.rotary_emb
        layers = list(decoder.layers)[: len(kinds)]  # type: ignore[arg-type]
        parts = [parts_of_layer(layer) for layer in layers]
        self._bound = _Bound(decoder, layers)
        groups = [group for part in parts for group in part]
        if not is_plain(groups):
            raise Unfusable("its linear layers are not all ordinary ones")
        if config._attn_implementation != "sdpa":
            raise Unfusable(f"its attention is {config._attn_implementation!r}, not 'sdpa'")
        if getattr(config, "attn_logit_softcapping", None) is not None:
            raise Unfusable("its attention scores are capped")
        if not self.current() or not all(map(_is_original, self._bound.modules)):
            raise Unfusable("its modules have hooks or replaced methods")
        weight: Tensor = parts[0][0][0].weight  # type: ignore[assignment]
        self.nbytes = 0
        """Bytes of packed copies of weights, on CPUs in bf16."""
        first: Any = layers[0].self_attn
        self._width = int(first.head_dim)
        self._queries = first.q_proj.out_features // self._width
        self._groups = first.k_proj.out_features // self._width
        self._layers = [
            self._bind(layer, part, kind, weight.dtype)
            for layer, part, kind in zip(layers, parts, kinds, strict=True)
        ]
        self._norm_out = _norm(decoder.norm, layout.norm_offset, weight.dtype)

    def _bind(self, layer: Any, parts: Any, kind: str, dtype: torch.dtype) -> _Layer:
        layout = self._layout

        def norm(module: Any) -> Map:
            return _norm(module, layout.norm_offset, dtype)

        def after(name: str | None) -> Map | None:
            return None if name is None else norm(getattr(layer, name))

        attention = layer.self_attn
        has_norms = getattr(attention, "q_norm", None) is not None
        return _Layer(
            kind=kind,
            norm_in=norm(layer.input_layernorm),
            qkv=self._product(parts[0]),
            norm_q=norm(attention.q_norm) if has_norms else None,
            norm_k=norm(attention.k_norm) if has_norms else None,
            scale=float(attention.scaling),
            attended=self._added(parts[1], after(layout.after_attention)),
            norm_mlp=norm(getattr(layer, layout.before_mlp)),
            gate_up=self._product(parts[2]),
            act=F.silu if isinstance(layer.mlp.act_fn, nn.SiLU) else layer.mlp.act_fn,
            fed=self._added(parts[3], after(layout.after_mlp)),
        )

    def _product(self, group: tuple[nn.Module, ...]) -> Product:
        """The product with a group's matrix."""
        found = merged_view(group)
        if found is None:
            raise Unfusable("its weights are not merged")
        product = make_product(*found)
        self.nbytes += product.nbytes
        return product

    def _added(self, group: tuple[nn.Module, ...], norm: Map | None) -> Add:
        """The product with a group's matrix, normalised if the layer does so, plus the residual."""
        product = self._product(group)
        if norm is None:
            return product.added
        return lambda residual, x: residual + norm(product(x))

    def current(self) -> bool:
        """Whether the decoder still has the modules that were bound, and no hooks."""
        return self._bound.unchanged()

    def run(self, x_BTD: Tensor, positions_BT: Tensor, mask: Any, cache: Any) -> Tensor:
        """Append positions to every row.

        The last layer computes the last position alone: of the others, nothing but keys and values
        is read later.

        Args:
            x_BTD: Input embeddings.
            positions_BT: Position ids.
            mask: Additive mask `(B, 1, T, C)`, or a dictionary of these by kind of layer. None: a
                position sees all columns up to its own.
            cache: Cache of the previous positions, one layer for each of the decoder; updated.

        Returns:
            States after the final norm at the last position, (B, D).
        """
        (rows, new, _), queries, groups = x_BTD.shape, self._queries, self._groups
        width, both, last = self._width, queries + groups, self._layers[-1]
        count, by_kind, turns = rows * new, isinstance(mask, dict), self._turns(x_BTD, positions_BT)
        x_PD = x_BTD.flatten(0, 1)
        for layer, kept in zip(self._layers, cache.layers, strict=True):
            qkv = layer.qkv(layer.norm_in(x_PD)).view(count, both + groups, width)
            qk = qkv[:, :both]
            if layer.norm_q is not None and layer.norm_k is not None:
                qk = torch.cat((layer.norm_q(qk[:, :queries]), layer.norm_k(qk[:, queries:])), 1)
            cos, sin = turns[layer.kind]
            qk = torch.addcmul(qk * cos, qk.roll(width // 2, -1), sin)
            keys, values = kept.update(_by_head(qk[:, queries:], new), _by_head(qkv[:, both:], new))
            q, shown = qk[:, :queries], mask[layer.kind] if by_kind else mask
            if new > 1 and layer is last:
                count, x_PD, q = rows, x_PD[new - 1 :: new], q[new - 1 :: new]
                shown = None if shown is None else shown[:, :, -1:]
            if count == rows:
                found = self._seen_by_one(q, keys, values, shown, layer.scale)
            else:
                found = _seen(_by_head(q, new), keys, values, shown, layer.scale)
            x_PD = layer.attended(x_PD, found)
            gate, up = layer.gate_up(layer.norm_mlp(x_PD)).view(count, 2, -1).unbind(1)
            x_PD = layer.fed(x_PD, layer.act(gate).mul_(up))
        return self._norm_out(x_PD)

    def _seen_by_one(
        self, q_BHE: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        """Attention of one position a row, (B, H x E).

        The queries that share a key-value head are the rows of one small matrix.
        """
        rows, queries, width = q_BHE.shape
        grouped = q_BHE.view(rows, self._groups, queries // self._groups, width)
        found = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
        return found.reshape(rows, queries * width)

    def _turns(self, x_BTD: Tensor, positions_BT: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Cosines and sines of each kind of layer, (P, 1, E).

        The first half of the sines is negated: the halves of a head are then swapped, where
        transformers' `rotate_half` also negates one.
        """
        kinds = {layer.kind for layer in self._layers}
        if self._layout.rotary_by_kind:
            made = {kind: self._rotary(x_BTD, positions_BT, kind) for kind in kinds}
        else:
            made = dict.fromkeys(kinds, self._rotary(x_BTD, positions_BT))
        found = {}
        for kind, (cos, sin) in made.items():
            low, high = sin.chunk(2, -1)
            turned = torch.cat((-low, high), -1).flatten(0, 1)
            found[kind] = cos.flatten(0, 1)[:, None], turned[:, None]
        return found


def _by_head(x_PHE: Tensor, new: int) -> Tensor:
    """Positions as the caches keep them, (B, H, T, E)."""
    return x_PHE.unsqueeze(2) if new == 1 else x_PHE.unflatten(0, (-1, new)).transpose(1, 2)


def _seen(
    q_BHTE: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Attention of several positions a row, (P, H x E)."""
    if mask is not None and q_BHTE.device.type == "cuda":
        # With a mask, kernels for CUDA want as many key-value heads as queries.
        share = q_BHTE.shape[1] // keys.shape[1]
        keys, values = (x.repeat_interleave(share, 1) for x in (keys, values))
    found = F.scaled_dot_product_attention(
        q_BHTE,
        keys,
        values,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=keys.shape[1] != q_BHTE.shape[1],
    )
    return found.transpose(1, 2).flatten(2).flatten(0, 1)


def _norm(module: Any, offset: float, dtype: torch.dtype) -> Map:
    """A root-mean-square norm of transformers.

    Raises:
        Unfusable: It is not one.
    """
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or not isinstance(eps, float):
        raise Unfusable(f"{type(module).__name__} is not a norm of a known form")
    return make_norm(weight.data, eps, offset, dtype)


def _is_original(module: nn.Module) -> bool:
    """Whether a module computes what its library defines."""
    home = str(getattr(type(module).forward, "__module__", ""))
    return "forward" not in module.__dict__ and home.startswith(("torch.", "transformers."))
