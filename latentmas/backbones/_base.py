"""What a backbone family is: where a model keeps its parts.

Shapes: `B` batch, `T` positions, `D` width, `V` vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from latentmas.backbones._registry import PARTS

__all__ = ["Family"]


class Family(ABC):
    """Interface of a family of models. Leaves hold quirks only; `auto` serves most models."""

    model_types: ClassVar[tuple[str, ...]] = ()
    """transformers' `model_type`s that this family handles."""
    provides: ClassVar[frozenset[str]] = PARTS
    """What link kinds may use of these models; a graph whose links need more does not compile.
    Leave `"embeddings"` out where input embeddings are not rows of one table."""

    @abstractmethod
    def decoder(self, model: PreTrainedModel) -> nn.Module:
        """The decoder without the vocabulary head; its output has `last_hidden_state`."""

    @abstractmethod
    def logits(self, model: PreTrainedModel, h_BD: Tensor) -> Tensor:
        """Scores over the vocabulary, `(…, D)` to `(…, V)`, as the whole model gives them."""

    @abstractmethod
    def new_cache(self, model: PreTrainedModel) -> Cache:
        """An empty cache whose layers fit the model."""

    def text_config(self, model: PreTrainedModel) -> Any:
        """The configuration of the decoder."""
        return model.config.get_text_config(decoder=True)
