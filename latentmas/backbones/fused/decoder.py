"""One position of a llama-like decoder: 4 products a layer, and no module calls.

Shapes: `B` batch, `D` width, `E` width of a head, `C` columns, `N` outputs, `K` inputs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentmas.backbones.fused.layouts import Layout
from latentmas.backbones.fused.merging import is_plain, merged_view, parts_of_layer

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
        self._watched = _modules(decoder, layers)
        groups = [group for part in parts for group in part]
        if not is_plain(groups):
            raise Unfusable("its linear layers are not all ordinary ones")
        if config._attn_implementation != "sdpa":
            raise Unfusable(f"its attention is {config._attn_implementation!r}, not 'sdpa'")
        if getattr(config, "attn_logit_softcapping", None) is not None:
            raise Unfusable("its attention scores are capped")
        if not self.current() or not all(_is_original(child) for _, _, child in self._watched):
            raise Unfusable("its modules have hooks or replaced methods")
        weight: Tensor = parts[0][0][0].weight  # type: ignore[assignment]
        self._pack = _packs(weight)
        self.nbytes = 0
        """Bytes of packed copies of weights, on CPUs in bf16."""
        first: Any = layers[0].self_attn
        self._width = int(first.head_dim)
        self._queries = first.q_proj.out_features // self._width
        self._groups = first.k_proj.out_features // self._width
        self._layers = [
            self._bind(layer, part, kind)
            for layer, part, kind in zip(layers, parts, kinds, strict=True)
        ]
        self._norm_out = _norm(decoder.norm, layout.norm_offset, weight.dtype)

    def _bind(self, layer: Any, parts: Any, kind: str) -> _Layer:
        layout, dtype = self._layout, parts[0][0].weight.dtype

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

    def _product(self, group: tuple[nn.Module, ...]) -> Map:
        """The product with a group's matrix."""
        found = merged_view(group)
        if found is None:
            raise Unfusable("its weights are not merged")
        weight_NK, bias = found
        if self._pack:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight_NK)
            self.nbytes += weight_NK.nbytes
            linear = torch.ops.mkldnn._linear_pointwise
            return lambda x: linear(x, packed, bias, "none", [], "")
        weight_KN = weight_NK.t()
        if bias is None:
            return lambda x: torch.mm(x, weight_KN)
        return lambda x: torch.addmm(bias, x, weight_KN)

    def _added(self, group: tuple[nn.Module, ...], norm: Map | None) -> Add:
        """The product with a group's matrix, normalised if the layer does so, plus the residual."""
        product = self._product(group)
        if norm is not None:
            return lambda residual, x: residual + norm(product(x))
        if self._pack or group[0].bias is not None:
            return lambda residual, x: residual + product(x)
        weight_KN = group[0].weight.data.t()  # type: ignore[operator, union-attr]
        return lambda residual, x: torch.addmm(residual, x, weight_KN)

    def current(self) -> bool:
        """Whether the decoder still has the modules that were bound, and no hooks."""
        return all(
            table.get(name) is module
            and not module._forward_hooks
            and not module._forward_pre_hooks
            for table, name, module in self._watched
        )

    def step(self, x_BD: Tensor, positions_B1: Tensor, mask: Any, cache: Any) -> Tensor:
        """Append one position to every row.

        Args:
            x_BD: Input embeddings.
            positions_B1: Position ids.
            mask: Additive mask `(B, 1, 1, C)` or None, or a dictionary of these by kind of layer.
            cache: Cache of the previous positions, one layer for each of the decoder; updated.

        Returns:
            States after the final norm, (B, D).
        """
        (rows, _), queries, groups = x_BD.shape, self._queries, self._groups
        width, both = self._width, queries + groups
        by_kind, turns = isinstance(mask, dict), self._turns(x_BD, positions_B1)
        for layer, kept in zip(self._layers, cache.layers, strict=True):
            qkv = layer.qkv(layer.norm_in(x_BD)).view(rows, both + groups, width)
            qk = qkv[:, :both]
            if layer.norm_q is not None and layer.norm_k is not None:
                qk = torch.cat((layer.norm_q(qk[:, :queries]), layer.norm_k(qk[:, queries:])), 1)
            cos, sin = turns[layer.kind]
            low, high = qk.chunk(2, -1)
            qk = torch.addcmul(qk * cos, torch.cat((high, low), -1), sin)
            keys, values = kept.update(qk[:, queries:, None], qkv[:, both:, None])
            # The queries that share a key-value head are the rows of one small matrix.
            found = F.scaled_dot_product_attention(
                qk[:, :queries].view(rows, groups, queries // groups, width),
                keys,
                values,
                attn_mask=mask[layer.kind] if by_kind else mask,
                scale=layer.scale,
            )
            x_BD = layer.attended(x_BD, found.reshape(rows, queries * width))
            gate, up = layer.gate_up(layer.norm_mlp(x_BD)).chunk(2, -1)
            x_BD = layer.fed(x_BD, layer.act(gate).mul_(up))
        return self._norm_out(x_BD)

    def _turns(self, x_BD: Tensor, positions_B1: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Cosines and sines of each kind of layer, (B, 1, E).

        The first half of the sines is negated: the halves of a head are then swapped, where
        transformers' `rotate_half` also negates one.
        """
        kinds = {layer.kind for layer in self._layers}
        if self._layout.rotary_by_kind:
            made = {kind: self._rotary(x_BD[:, None], positions_B1, kind) for kind in kinds}
        else:
            made = dict.fromkeys(kinds, self._rotary(x_BD[:, None], positions_B1))
        found = {}
        for kind, (cos, sin) in made.items():
            low, high = sin.chunk(2, -1)
            found[kind] = cos, torch.cat((-low, high), -1)
        return found


def _packs(weight: Tensor) -> bool:
    """Whether products run on packed weights: on CPUs that have instructions for bf16.

    The packed weights are a second copy. `LATENTMAS_PACK=0` in the environment does without it.
    SmolLM2's products took 7.3 ms packed and 9.6 ms plain for 1 row, and 8.8 and 12.8 ms for
    4 rows (one thread of a Xeon with AVX-512).
    """
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
        return False
    if os.environ.get("LATENTMAS_PACK") == "0":
        return False
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and torch.backends.mkldnn.is_available() and bool(supported())


def _norm(module: Any, offset: float, dtype: torch.dtype) -> Map:
    """A root-mean-square norm of transformers, whose statistics are taken in fp32.

    Raises:
        Unfusable: It is not one.
    """
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or not isinstance(eps, float):
        raise Unfusable(f"{type(module).__name__} is not a norm of a known form")
    weight, size = weight.data, tuple(weight.shape)
    if offset:
        wide = offset + weight.float()
        return lambda x: F.rms_norm(x.float(), size, wide, eps).to(dtype)
    if dtype == torch.float64:
        return lambda x: weight * F.rms_norm(x.float(), size, None, eps).to(dtype)
    return lambda x: F.rms_norm(x, size, weight, eps)


def _is_original(module: nn.Module) -> bool:
    """Whether a module computes what its library defines."""
    home = str(getattr(type(module).forward, "__module__", ""))
    return "forward" not in module.__dict__ and home.startswith(("torch.", "transformers."))


def _modules(
    decoder: nn.Module, layers: list[nn.Module]
) -> list[tuple[dict[str, nn.Module | None], str, nn.Module]]:
    """All modules whose calls a step replaces, with where they are found."""
    return [
        (parent._modules, name, child)
        for root in [decoder, *layers]
        for parent in (root.modules() if root is not decoder else [root])
        for name, child in parent._modules.items()
        if child is not None and child is not getattr(decoder, "embed_tokens", None)
    ]
