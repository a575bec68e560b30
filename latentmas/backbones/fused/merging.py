"""Weights that are read one after the other, put into one matrix.

The modules keep working: their weights become views of the merged ones, so nothing is stored
twice. Shapes: `N` outputs, `K` inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

__all__ = ["Parts", "is_plain", "merge_decoder", "merged_view", "parts_of_layer", "transposed_pays"]

Parts = tuple[tuple[nn.Module, ...], ...]
"""The linear layers of a decoder layer: those of Q, K and V; of the output; of gate and up; of
down. Those in one group read the same input."""

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def parts_of_layer(layer: nn.Module) -> Parts:
    """The linear layers of a decoder layer, in groups.

    Raises:
        AttributeError: The layer lacks one of them.
    """
    attention, mlp = layer.self_attn, layer.mlp
    return (
        (attention.q_proj, attention.k_proj, attention.v_proj),  # type: ignore[union-attr, return-value]
        (attention.o_proj,),  # type: ignore[union-attr]
        (mlp.gate_proj, mlp.up_proj),  # type: ignore[union-attr]
        (mlp.down_proj,),  # type: ignore[union-attr]
    )


def is_plain(groups: Sequence[tuple[nn.Module, ...]]) -> bool:
    """Whether all are ordinary frozen linear layers of one data type on one device, each once.

    Quantised weights, adapters and weights that are spread over processes are not.
    """
    modules = [module for group in groups for module in group]
    if not modules or any(type(module) is not nn.Linear for module in modules):
        return False
    tensors = list(_weights(modules))
    first = tensors[0]
    return len({id(module) for module in modules}) == len(modules) and all(
        type(tensor.data) is Tensor
        and not tensor.requires_grad
        and tensor.dtype == first.dtype in FLOATS
        and tensor.device == first.device
        and tensor.device.type in ("cpu", "cuda")
        for tensor in tensors
    )


def _weights(modules: Sequence[nn.Module]) -> Iterator[Tensor]:
    for module in modules:
        yield module.weight  # type: ignore[misc]
        if module.bias is not None:
            yield module.bias  # type: ignore[misc]


def transposed_pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether weights are stored by input rather than by output.

    On a CPU in fp32, products of 4 rows with the layers of SmolLM2 took 13.3 ms stored by input and
    17.7 ms by output, those of 1 row 9.3 and 9.8 ms, and those of 32 rows 25 and 31 ms (one thread
    of a Xeon, MKL). In bf16 it was the other way round.
    """
    return device.type == "cpu" and dtype in (torch.float32, torch.float64)


@torch.no_grad()
def merge_decoder(layers: Sequence[nn.Module]) -> bool:
    """Put the weights of each group into one matrix, in place; values are unchanged.

    Args:
        layers: Decoder layers.

    Returns:
        Whether the weights were merged: they are not if some are not ordinary linear layers.
    """
    try:
        parts = [parts_of_layer(layer) for layer in layers]
    except AttributeError:
        return False
    groups = [group for part in parts for group in part]
    if not is_plain(groups):
        return False
    for group in groups:
        if merged_view(group) is None or _stored_otherwise(group[0].weight):  # type: ignore[arg-type]
            _merge(group)
    return True


def _stored_otherwise(weight: Tensor) -> bool:
    return (weight.stride(0) == 1) != transposed_pays(weight.device, weight.dtype)


def _merge(group: tuple[nn.Module, ...]) -> None:
    weights: list[Tensor] = [module.weight for module in group]  # type: ignore[misc]
    sizes = [weight.shape[0] for weight in weights]
    whole = torch.cat([weight.data for weight in weights])
    if transposed_pays(whole.device, whole.dtype):
        whole = whole.t().contiguous().t()
    for weight, view in zip(weights, whole.split(sizes), strict=True):
        weight.data = view
    biases: list[Tensor] = [module.bias for module in group if module.bias is not None]  # type: ignore[misc]
    if len(biases) == len(group):
        for bias, view in zip(
            biases, torch.cat([b.data for b in biases]).split(sizes), strict=True
        ):
            bias.data = view


def merged_view(group: tuple[nn.Module, ...]) -> tuple[Tensor, Tensor | None] | None:
    """The matrix `(N, K)` and bias that a group's weights are views of; None if they are not."""
    weights: list[Tensor] = [module.weight.data for module in group]  # type: ignore[union-attr, misc]
    biases = [module.bias for module in group]
    if any(bias is None for bias in biases) and any(bias is not None for bias in biases):
        return None
    weight = _whole(weights)
    if biases[0] is None:
        return None if weight is None else (weight, None)
    bias = _whole([bias.data for bias in biases])  # type: ignore[union-attr, misc]
    return None if weight is None or bias is None else (weight, bias)


def _whole(pieces: Sequence[Tensor]) -> Tensor | None:
    """The tensor whose consecutive rows the pieces are."""
    first, offset = pieces[0], pieces[0].storage_offset()
    for piece in pieces:
        same = piece.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not same or piece.stride() != first.stride() or piece.storage_offset() != offset:
            return None
        offset += piece.shape[0] * piece.stride(0)
    rows = sum(piece.shape[0] for piece in pieces)
    return first.as_strided((rows, *first.shape[1:]), first.stride())
