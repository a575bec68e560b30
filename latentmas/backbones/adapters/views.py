"""Views of a loaded backbone: the same weights under an adapter, a saved one or one that learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from latentmas.backbones._facts import resolve_source
from latentmas.backbones._loaded import LoadedBackbone
from latentmas.backbones._probe import probe
from latentmas.backbones.adapters.config import AdapterError
from latentmas.backbones.adapters.facts import adapter_of
from latentmas.backbones.adapters.layers import (
    LEARNED,
    inject,
    load_adapter,
    lora_weights,
    shared_copy,
)
from latentmas.backbones.kv_cache.state import KVCache
from latentmas.errors import WeightsError
from latentmas.plan import PlanBackbone

__all__ = ["lora_targets", "with_adapter", "with_lora"]


def with_adapter(
    base: LoadedBackbone, planned: PlanBackbone, *, commit: str | None = None
) -> LoadedBackbone:
    """A view of a loaded model under the adapter that a backbone declares.

    Args:
        base: Loaded model without an adapter.
        planned: Backbone that is equal but for its adapter.
        commit: Commit of the adapter on the hub that overrides the declared revision.

    Raises:
        WeightsError: The adapter cannot be used or does not fit, or peft is not installed.
    """
    assert planned.spec.adapter is not None
    files = adapter_of(planned.spec, resolve_source(planned.spec.adapter), commit)
    model = shared_copy(base.model)
    try:
        load_adapter(model, files)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        reason = " ".join(str(error).split("\n", 1)[0].split()) or repr(error)
        raise AdapterError(
            f"adapter {files.name!r} cannot be put over {planned.spec.source!r}: {reason}",
            "use the model that the adapter was trained on",
        ) from error
    view = _view(base, model, planned)
    view.adapter_commit = files.commit
    probe(view, lambda: KVCache(view))
    return view


def with_lora(
    backbone: LoadedBackbone,
    *,
    r: int,
    alpha: float,
    target_modules: Sequence[str] | None,
    rslora: bool,
    seed: int,
) -> tuple[LoadedBackbone, dict[str, nn.Parameter]]:
    """A view of a backbone under new LoRA weights, which change nothing until they have learned.

    Args:
        backbone: Loaded backbone; an adapter that it has stays below the new one.
        r: Rank.
        alpha: Scale, which is divided by the rank.
        target_modules: Names of linear layers, or the ends of their names; None: all of the
            decoder.
        rslora: Whether alpha is divided by the root of the rank instead.
        seed: Random seed of the weights.

    Returns:
        The view, and its new weights by name, in fp32 or the backbone's wider type.

    Raises:
        AdapterError: A module is not a linear layer of the model.
        WeightsError: peft is not installed.
    """
    if backbone.split is not None:
        raise AdapterError(
            f"{backbone.planned.spec.source!r} takes no adapter: {backbone.split.reason}",
            "load it on one device",
        )
    model = shared_copy(backbone.model)
    names = lora_targets(backbone, target_modules)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject(model, LEARNED, r=r, lora_alpha=alpha, target_modules=names, use_rslora=rslora)
    view = _view(backbone, model, backbone.planned)
    view.learned, view.adapter_commit = True, backbone.adapter_commit
    weights = lora_weights(model, LEARNED)
    for weight in weights.values():
        if weight.dtype in (torch.bfloat16, torch.float16):
            weight.data = weight.data.float()
    return view, weights


def _view(base: LoadedBackbone, model: Any, planned: PlanBackbone) -> LoadedBackbone:
    view = LoadedBackbone(model, base.tokenizer, planned, base.commit)
    view.masks = None if base.masks is None else view.masks
    view.base = base.base or base
    return view


def lora_targets(backbone: LoadedBackbone, wanted: Sequence[str] | None) -> list[str]:
    """Full names of the linear layers that an adapter goes to; nothing is changed.

    Args:
        backbone: Loaded backbone.
        wanted: Names of layers, or the ends of their names; None: all of the decoder. Those of the
            vocabulary head are not among them.

    Raises:
        AdapterError: A name fits no layer.
    """
    model = backbone.model
    decoder = {id(module) for module in backbone.family.decoder(model).modules()}
    names = [
        name.removesuffix(".base_layer")
        for name, module in model.named_modules()
        if id(module) in decoder and _is_layer(module) and ".lora_" not in name
    ]
    if wanted is None:
        return names
    chosen = []
    for target in wanted:
        found = [name for name in names if name == target or name.endswith(f".{target}")]
        if not found:
            known = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))
            raise AdapterError(
                f"target_modules names {target!r:.80}, and {backbone.planned.spec.source!r} has no "
                "linear layer of that name in its decoder",
                f"choose among {known}",
            )
        chosen += found
    return list(dict.fromkeys(chosen))


def _is_layer(module: nn.Module) -> bool:
    """Whether it is a linear layer itself, plain or quantised, and not one that PEFT wraps."""
    sizes = ("in_features", "out_features")
    plain = all(hasattr(module, name) for name in sizes) or type(module).__name__ == "Conv1D"
    return plain and not hasattr(module, "base_layer")
