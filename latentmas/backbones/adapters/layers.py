"""Adapters over a loaded model: one model, many views of it, each with LoRA layers of its own.

Nothing is ever switched. A view is a copy of the model's modules, not of its weights: both trees
hold the same tensors, and the view's linear layers are wrapped by PEFT. Views may therefore run in
threads, interleave, keep caches and captured graphs, and learn, without knowledge of each other.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from latentmas.backbones.adapters.config import (
    AdapterConfig,
    AdapterError,
    AdapterFiles,
    module_ranks,
)
from latentmas.errors import WeightsError

__all__ = ["LEARNED", "inject", "load_adapter", "lora_weights", "shared_copy"]

DECLARED, LEARNED = "declared", "learned"
"""Names that PEFT knows a backbone's declared adapter, and an agent's own, by."""


def shared_copy(model: Any) -> Any:
    """A copy of a model's modules over the same weights; only Python objects are new."""
    weights = (*model.parameters(), *model.buffers())
    # Quantised layers hold more tensors than these, such as scales, in objects of their own.
    inside = (t for m in model.modules() for value in vars(m).values() for t in _held(value))
    memo: dict[int, Any] = {id(one): one for one in (*weights, *inside, model.config)}
    return copy.deepcopy(model, memo)


def _held(value: Any, depth: int = 3) -> Iterator[Tensor]:
    """Tensors that an attribute of a module holds, modules and containers aside."""
    if isinstance(value, Tensor):
        yield value
    elif depth and hasattr(value, "__dict__") and not isinstance(value, nn.Module | type):
        for inner in vars(value).values():
            yield from _held(inner, depth - 1)


def inject(model: Any, name: str, **fields: Any) -> None:
    """Wrap layers of a model by LoRA layers of PEFT, and have them all take part.

    Args:
        model: Model that no other view runs on; changed in place.
        name: Name of the adapter. Adapters that are there already stay active.
        **fields: Fields of `peft.LoraConfig`.

    Raises:
        WeightsError: peft is not installed, or the model's own weights would change.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer
    except ImportError as error:
        raise WeightsError(
            "adapters need the package peft; pip install 'latentmas[peft]'"
        ) from error
    before = _versions(model)
    inject_adapter_in_model(LoraConfig(**fields), model, adapter_name=name)
    model.__dict__.pop("peft_config", None)  # PEFT warns of a second adapter where it finds one
    if not before <= _versions(model):
        raise WeightsError("PEFT changed the weights of the model below an adapter; please report")
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter([one for one in (DECLARED, LEARNED) if one in module.lora_A])
    model.eval().requires_grad_(False)


def _versions(model: nn.Module) -> set[tuple[int, int]]:
    return {(id(weight), weight._version) for weight in model.parameters()}


def lora_weights(model: Any, name: str) -> dict[str, nn.Parameter]:
    """Weights of an adapter, by their names in PEFT's files without the prefix."""
    found = {}
    for key, weight in model.named_parameters():
        parts = key.split(".")
        at = next((i for i, part in enumerate(parts) if part.startswith("lora_")), None)
        if at is not None and parts[at + 1] == name:
            found[".".join(parts[: at + 1] + parts[at + 2 :])] = weight
    return found


def load_adapter(model: Any, files: AdapterFiles) -> None:
    """Put a saved adapter over a model.

    Args:
        model: Copy of the model; changed in place.
        files: The adapter.

    Raises:
        AdapterError: Its weights do not fit the model, or are not finite.
    """
    path = files.weights()
    ranks, header = module_ranks(files.name, files.config, path)
    layers = dict(model.named_modules())
    missing = [name for name in ranks if not _is_linear(layers.get(name))]
    if missing:
        raise AdapterError(
            f"adapter {files.name!r} adapts {missing[0]!r:.120}, which is not a linear layer of "
            f"the model ({len(missing)} of {len(ranks)} modules)",
            "use the model that the adapter was trained on",
        )
    with torch.random.fork_rng(devices=[]):
        inject(model, DECLARED, **_fields(files.config, ranks))
    wanted = lora_weights(model, DECLARED)
    state = {_plain(name): name for name in header.entries}
    _check(files, wanted, {own: header.entries[name].shape for own, name in state.items()})
    with torch.no_grad(), safe_open(path, "pt") as file:
        for own, name in state.items():
            _fill(files, wanted[own], file.get_tensor(name), name)


def _plain(name: str) -> str:
    """Name of a weight in the model, from its name in a file."""
    own = name.removeprefix("base_model.model.")
    return f"{own}.weight" if own.endswith("lora_magnitude_vector") else own


def _is_linear(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and not isinstance(module, nn.Embedding)


def _fields(config: AdapterConfig, ranks: Mapping[str, int]) -> dict[str, Any]:
    """Fields of a LoRA configuration that names each module in full."""
    exact = {name: f"^{re.escape(name)}" for name in ranks}
    alphas = {name: config.alpha_of(name) for name in ranks}
    return {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "target_modules": list(ranks),
        "rank_pattern": {exact[n]: rank for n, rank in ranks.items() if rank != config.r},
        "alpha_pattern": {exact[n]: a for n, a in alphas.items() if a != config.lora_alpha},
        "use_rslora": config.use_rslora,
        "use_dora": config.use_dora,
        "lora_bias": config.lora_bias,
        "fan_in_fan_out": config.fan_in_fan_out,
    }


def _check(
    files: AdapterFiles, wanted: Mapping[str, Tensor], found: Mapping[str, tuple[int, ...]]
) -> None:
    lines = [f"missing: {name}" for name in wanted if name not in found]
    lines += [f"unexpected: {name}" for name in found if name not in wanted]
    lines += [
        f"{name}: shape {found[name]}, not {tuple(weight.shape)}"
        for name, weight in wanted.items()
        if name in found and found[name] != tuple(weight.shape)
    ]
    if lines:
        shown = "; ".join(sorted(lines)[:5])
        raise AdapterError(
            f"adapter {files.name!r} does not fit the model in {len(lines)} weights: {shown}",
            "use the model that the adapter was trained on",
        )


def _fill(files: AdapterFiles, weight: nn.Parameter, value: Tensor, name: str) -> None:
    if not value.is_floating_point() or not value.isfinite().all():
        raise AdapterError(
            f"adapter {files.name!r}: {name:.120} holds values that are not finite numbers",
            "train it again, or take another checkpoint of it",
        )
    half = weight.dtype in (torch.bfloat16, torch.float16)
    # As PEFT does: LoRA weights over a half-precision model are in fp32.
    weight.data = value.to(weight.device, torch.float32 if half else weight.dtype)
