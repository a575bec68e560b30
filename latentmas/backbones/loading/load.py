"""Loading a backbone: weights and tokenizer from files, checked by a few tokens."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers.utils import find_adapter_config_file, is_peft_available

from latentmas.backbones._loaded import LoadedBackbone
from latentmas.backbones._probe import probe
from latentmas.backbones.devices.split import Split
from latentmas.backbones.devices.spread import Spread, is_spread
from latentmas.backbones.kv_cache.state import KVCache
from latentmas.backbones.loading.arguments import loading_arguments
from latentmas.backbones.loading.classes import model_class
from latentmas.backbones.loading.config import read_config
from latentmas.backbones.loading.files import Files, files_of
from latentmas.backbones.loading.gguf import is_gguf, unpacked
from latentmas.backbones.loading.tokenizers import check_ids_fit, load_tokenizer
from latentmas.errors import WeightsError
from latentmas.plan import PlanBackbone

__all__ = ["load_backbone"]


def load_backbone(
    planned: PlanBackbone,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    commit: str | None = None,
    split: Split | None = None,
) -> LoadedBackbone:
    """Load a backbone's weights and tokenizer.

    Args:
        planned: The backbone, with the facts that its plan was compiled with. Its adapter is
            left out: `with_adapter` makes a view with it.
        device: Target device; a split model is where its split puts it.
        dtype: Data type that overrides the declared one.
        commit: Commit on the hub that overrides the declared revision.
        split: How to put the model on several devices.

    Raises:
        WeightsError: The backbone cannot be loaded, its width differs from the plan's, or it is
            unsuitable: its family computes different logits from the model, or its states change
            with a batch's padding or when the prompt is read in pieces.
    """
    spec = planned.spec
    if spec.given:
        raise _not_given(spec.given, device, dtype)
    files = files_of(spec, commit)
    if is_gguf(files.source):
        files = Files(str(unpacked(files.source, spec.dtype)), {})
    try:
        config = read_config(files, spec.load)
        tokenizer = load_tokenizer(spec, files)
        asked = loading_arguments(spec, files, config, dtype=dtype or spec.dtype, device=device)
        load = model_class(config).from_pretrained
        if split is not None:
            load = partial(split.load, model_class(config))
        loaded: Any = load(
            files.source, output_loading_info=True, **asked, **_without_foreign_adapter(files)
        )
    except Exception as error:  # torch, transformers and model code may raise any exception
        raise WeightsError(f"cannot load backbone {spec.source!r}: {_reason(error)}") from error
    model, found = loaded
    if found["missing_keys"]:
        names = ", ".join(sorted(found["missing_keys"])[:5])
        raise WeightsError(f"cannot load backbone {spec.source!r}: its weights lack {names}")
    if isinstance(split, Spread) and not is_spread(model):
        split, device = None, str(next(model.parameters()).device)
    try:
        model = model if split is not None or "device_map" in asked else model.to(device)
    except (MemoryError, RuntimeError) as error:
        reason = _reason(error)
        raise WeightsError(f"cannot move backbone {spec.source!r} to {device}: {reason}") from error
    if spec.tokenizer is not None:
        check_ids_fit(spec, tokenizer, model)
    backbone = LoadedBackbone(model, tokenizer, planned, commit=_commit(files), split=split)
    probe(backbone, lambda: KVCache(backbone))
    return backbone


def _not_given(name: str, device: str, dtype: str | None) -> WeightsError:
    wanted = f" with dtype {dtype}" if dtype else ""
    return WeightsError(
        f"LM207 backbone 'given:{name}' is a model that is handed over as an object, and none is "
        f"on {device}{wanted}; pass models={{{name!r}: (model, tokenizer)}}, "
        "after moving or converting the model itself with model.to(…)"
    )


def _reason(error: Exception) -> str:
    """Reason why a model cannot be loaded, on one line."""
    if isinstance(error, UnpicklingError | EOFError):
        # torch's own message advises unpickling the file anyway, which may run its code.
        return (
            "its weights are not a checkpoint that torch can read without running code from the "
            "file; download it again, or use a copy in safetensors format"
        )
    text = " ".join(str(error).split("\n", 1)[0].split()) or repr(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return f"there is not enough memory ({text}); free some, or use a smaller model or dtype"
    return text


def _commit(files: Files) -> str | None:
    """The hub commit of the loaded model, derived from its path in the cache."""
    if Path(files.source).is_dir():
        return None
    name = "/".join(filter(None, (files.options.get("subfolder"), "config.json")))
    path = try_to_load_from_cache(files.source, name, revision=files.options["revision"])
    if not isinstance(path, str):
        return None
    return Path(path.removesuffix(name)).name


def _without_foreign_adapter(files: Files) -> dict[str, Any]:
    """Options that prevent transformers from reading another tool's `adapter_config.json`.

    If peft is installed, transformers treats any file of that name as a peft adapter; the published
    RecursiveMAS checkpoints have one next to their models.
    """
    if not is_peft_available():
        return {}
    place = {name: files.options.get(name) for name in ("revision", "subfolder")}
    found = find_adapter_config_file(
        files.source, **{name: value for name, value in place.items() if value is not None}
    )
    if found is None or "peft_type" in json.loads(Path(found).read_text(encoding="utf-8")):
        return {}
    return {"adapter_kwargs": {"subfolder": "no-peft-adapter-here"}}
