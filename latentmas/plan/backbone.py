"""Facts about a backbone, known from its configuration alone."""

from __future__ import annotations

from latentmas.spec import Backbone, Frozen

__all__ = ["BackboneInfo", "PlanBackbone"]


class BackboneInfo(Frozen):
    """What the compiler needs to know of a model; no weights involved."""

    model_type: str
    """transformers' `model_type`, such as `"qwen3"`."""
    hidden_size: int
    """Width D of the states."""
    vocab_size: int
    """Size V of the vocabulary."""
    num_layers: int
    """Decoder layers."""
    max_positions: int | None = None
    """Longest context in tokens, where the configuration says so."""


class PlanBackbone(Frozen):
    """A backbone of a plan: loaded once for all its agents."""

    spec: Backbone
    info: BackboneInfo
    agents: tuple[str, ...]
    """Agents that run on it, in declaration order."""
