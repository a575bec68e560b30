"""The interface of backbone families: where a model keeps its parts.

Shapes: `B` batch, `T` positions, `D` width, `V` vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from latentmas.backbones._registry import PARTS

__all__ = ["Family"]


class Family(ABC):
    """Interface of a family of models. Subclasses hold only quirks; `auto` serves most models."""

    model_types: ClassVar[tuple[str, ...]] = ()
    """transformers' `model_type`s that this family handles."""
    provides: ClassVar[frozenset[str]] = PARTS
    """Parts of these models that link kinds may use; a graph whose links need more does not
    compile. Omit `"embeddings"` if input embeddings are not rows of one table."""

    @abstractmethod
    def decoder(self, model: PreTrainedModel) -> nn.Module:
        """The decoder without the vocabulary head; its output has `last_hidden_state`."""

    @abstractmethod
    def logits(
        self,
        model: PreTrainedModel,
        h_BD: Tensor,
        head: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Logits over the vocabulary, `(…, D)` to `(…, V)`, equal to those of the whole model.

        Args:
            model: The model.
            h_BD: States after the final norm.
            head: The product of the model's head with its weights in another layout; None: the
                module. A family may leave this parameter out, and is then never given one.
        """

    @abstractmethod
    def new_cache(self, model: PreTrainedModel) -> Cache:
        """An empty cache whose layers match the model."""

    def text_config(self, model: PreTrainedModel) -> Any:
        """The configuration of the decoder."""
        return model.config.get_text_config(decoder=True)
