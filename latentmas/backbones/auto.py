"""Any decoder-only model that transformers can load."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, LinearAttentionCacheLayerMixin

from latentmas.backbones._base import Family
from latentmas.backbones._registry import families
from latentmas.backbones.kv_cache.growing import with_room

__all__ = ["Auto"]


@families.register("auto")
class Auto(Family):
    """The default family: parts are found through transformers' own accessors.

    Reference: `PreTrainedModel.get_decoder`, `get_output_embeddings`, `DynamicCache(config=…)`.
    Loading compares its logits with the whole model's, so a model with a quirk is rejected rather
    than run incorrectly.
    """

    def decoder(self, model: PreTrainedModel) -> nn.Module:
        """`model.get_decoder()`."""
        decoder: nn.Module = model.get_decoder()
        return decoder

    def logits(
        self,
        model: PreTrainedModel,
        h_BD: Tensor,
        head: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The output embeddings, with the scale or soft cap set in the configuration."""
        config = self.text_config(model)
        scores = (head or model.get_output_embeddings())(h_BD)
        scores = scores * getattr(config, "logit_scale", 1.0)
        scores = scores / getattr(config, "logits_scaling", 1.0)
        cap = getattr(config, "final_logit_softcapping", None)
        return scores if cap is None else torch.tanh(scores / cap) * cap

    def new_cache(self, model: PreTrainedModel) -> Cache:
        """A dynamic cache with one layer per layer of the model (sliding, linear, full attention).

        Attention layers reserve room for further columns. A looped model (Ouro) passes several
        times over its layers, each time with keys and values of their own.
        """
        config = self.text_config(model)
        cache = DynamicCache(config=config)
        passes = range(getattr(config, "total_ut_steps", 1))
        cache.layers = [
            with_room(layer) for _ in passes for layer in DynamicCache(config=config).layers
        ]
        for layer in cache.layers:
            if isinstance(layer, LinearAttentionCacheLayerMixin):
                setattr(layer, "update_recurrent_state", MethodType(_replace_state, layer))  # noqa: B010
        return cache


def _replace_state(layer: Any, recurrent_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
    """Store the new state itself: transformers overwrites the old one, which autograd needs."""
    layer.is_recurrent_states_initialized[state_idx] = True
    layer.recurrent_states[state_idx] = recurrent_states
    return recurrent_states
