"""Models that are handed over as objects, instead of being read from files."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from latentmas.backbones._facts import info_of
from latentmas.backbones._loaded import LoadedBackbone
from latentmas.backbones._probe import probe
from latentmas.backbones.kv_cache.state import KVCache
from latentmas.backbones.loading.tokenizers import check_ids_fit
from latentmas.plan import BackboneInfo, PlanBackbone
from latentmas.spec import Backbone

__all__ = ["adopt_models", "given_info"]


def given_info(spec: Backbone, given: object) -> BackboneInfo:
    """The facts of a model that is handed over, from its configuration.

    Args:
        spec: Its declaration, of the source `given:NAME`.
        given: The model and its tokenizer.

    Raises:
        TypeError: It is not such a pair.
        WeightsError: The model is not a decoder.
    """
    model, _ = _pair(str(spec.given), given)
    return info_of(spec.source, model.config, spec)


def adopt_models(
    backbones: Mapping[str, PlanBackbone], models: Mapping[str, object]
) -> dict[str, LoadedBackbone]:
    """The loaded backbone of each agent whose model is handed over.

    The model is frozen and put into evaluation mode; it stays on its device and keeps its type. The
    tokenizer is copied, so that a chat template of the declaration does not change the original.

    Args:
        backbones: Backbones of the plan, by key.
        models: Models with their tokenizers, by name.

    Raises:
        TypeError: A value is not a pair of a model and a tokenizer.
        WeightsError: A model is unsuitable, or does not fit the plan or its tokenizer.
    """
    adopted: dict[str, LoadedBackbone] = {}
    for planned in backbones.values():
        name = planned.spec.given
        if name is None or name not in models:
            continue
        model, tokenizer = _pair(name, models[name])
        check_ids_fit(planned.spec, tokenizer, model)
        backbone = LoadedBackbone(model, _copied(tokenizer, planned.spec), planned)
        probe(backbone, lambda new=backbone: KVCache(new))  # type: ignore[misc]
        adopted |= dict.fromkeys(planned.agents, backbone)
    return adopted


def _copied(tokenizer: PreTrainedTokenizerBase, spec: Backbone) -> PreTrainedTokenizerBase:
    own = copy.deepcopy(tokenizer)
    if spec.chat_template is not None:
        own.chat_template = spec.chat_template
    return own


def _pair(name: str, given: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if isinstance(given, tuple | list) and len(given) == 2:
        model, tokenizer = given
        if isinstance(model, PreTrainedModel) and isinstance(tokenizer, PreTrainedTokenizerBase):
            return model, tokenizer
        found = f"({type(model).__name__}, {type(tokenizer).__name__})"
    else:
        found = type(given).__name__
    raise TypeError(
        f"models[{name!r}] is {found}; give a transformers model and its tokenizer: "
        "(model, tokenizer)"
    )
