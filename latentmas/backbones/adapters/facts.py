"""Facts about an adapter for the compiler: its rank, modules and size. No weights, no peft."""

from __future__ import annotations

from functools import cache
from typing import Any

from latentmas.backbones.adapters.config import (
    AdapterError,
    AdapterFiles,
    find_adapter,
    module_ranks,
)
from latentmas.errors import closest
from latentmas.plan import AdapterInfo
from latentmas.redact import get_logger
from latentmas.spec import Backbone

__all__ = ["adapter_of", "read_adapter"]

log = get_logger("latentmas.backbones")


def adapter_of(spec: Backbone, resolved: str, revision: str | None = None) -> AdapterFiles:
    """Find the adapter of a backbone.

    Args:
        spec: Backbone that has one.
        resolved: Its folder or hub id.
        revision: Commit that overrides the declared revision.

    Raises:
        AdapterError: It cannot be used.
    """
    assert spec.adapter is not None
    return find_adapter(spec.adapter, resolved, revision or spec.adapter_revision)


def read_adapter(spec: Backbone, resolved: str, config: Any) -> AdapterInfo:
    """Facts about a backbone's adapter.

    Args:
        spec: Backbone that has one.
        resolved: The adapter's folder or hub id.
        config: Configuration of the model; None where it is not read.

    Raises:
        AdapterError: It cannot be used, or adapts modules that the model does not have.
    """
    files = adapter_of(spec, resolved)
    told = files.config
    sizes = {} if config is None else _layer_sizes(config, spec.trust_remote_code)
    if sizes and not isinstance(told.target_modules, str):
        _check_targets(files, sizes)
    trained_on = told.base_model_name_or_path
    if trained_on and not _same_model(trained_on, spec.source):
        _warn_of_base(files.name, trained_on, spec.source)
    return AdapterInfo(
        r=told.rank,
        targets=told.targets,
        base_model=trained_on,
        n_parameters=_count(files, sizes),
    )


def _check_targets(files: AdapterFiles, sizes: dict[str, tuple[int, int]]) -> None:
    known = dict.fromkeys(name.rpartition(".")[2] for name in sizes)
    for target in files.config.targets:
        if any(_matches(name, target) for name in sizes):
            continue
        guess = closest(target, known)
        shown = f"did you mean {guess!r}?" if guess else f"it has: {', '.join(known)}"
        raise AdapterError(
            f"adapter {files.name!r} adapts {target!r:.80}, and the model has no linear layer of "
            f"that name; {shown}",
            "use the model that the adapter was trained on"
            + (f": {told!r:.100}" if (told := files.config.base_model_name_or_path) else ""),
        )


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _count(files: AdapterFiles, sizes: dict[str, tuple[int, int]]) -> int | None:
    """Number of an adapter's weights: of those in its folder, else by its configuration.

    None where neither settles it.
    """
    told = files.config
    if files.folder is not None:
        _, header = module_ranks(files.name, told, files.weights())
        return sum(entry.size for entry in header.entries.values())
    odd = told.use_dora or told.lora_bias or isinstance(told.target_modules, str)
    chosen = ("layers_to_transform", "exclude_modules")
    if odd or not sizes or any((told.model_extra or {}).get(key) for key in chosen):
        return None
    adapted = [name for name in sizes if any(_matches(name, one) for one in told.targets)]
    return sum(told.rank_of(name) * sum(sizes[name]) for name in adapted)


def _same_model(one: str, other: str) -> bool:
    """Whether two sources seem to name one model: ids, folders and files of a model differ."""
    parts = [
        [part.removesuffix(".gguf") for part in source.lower().rstrip("/").split("/")]
        for source in (one, other)
    ]
    return any(
        mine[-1] in part for mine, theirs in (parts, reversed(parts)) for part in theirs if mine[-1]
    )


@cache
def _warn_of_base(adapter: str, trained_on: str, source: str) -> None:
    """Say once that an adapter may belong to another model."""
    log.warning(
        "adapter %r was trained on %r, and is used on %r; on another model its answers make no "
        "sense, even where all shapes fit",
        *(adapter, trained_on, source),
    )


_sizes: dict[tuple[str, bool], dict[str, tuple[int, int]]] = {}


def _layer_sizes(config: Any, trust_remote_code: bool) -> dict[str, tuple[int, int]]:
    """Widths of the linear layers of a model built without memory; empty if it cannot be built."""
    key = config.to_json_string(), trust_remote_code
    if key not in _sizes:
        try:
            _sizes[key] = _measure(config, trust_remote_code)
        except Exception:  # arbitrary model code runs here, on tensors without data
            _sizes[key] = {}
    return _sizes[key]


def _measure(config: Any, trust_remote_code: bool) -> dict[str, tuple[int, int]]:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    found = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if type(module).__name__ in ("Linear", "Conv1D") and weight is not None:
            found[name] = (int(weight.shape[0]), int(weight.shape[1]))
    return found
