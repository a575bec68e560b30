"""What a model step runs on."""

from __future__ import annotations

from typing import NamedTuple

from latentmas.backbones import LoadedBackbone
from latentmas.engine.packing import Packed
from latentmas.plan import Decode, Rollout

__all__ = ["StepInput"]


class StepInput(NamedTuple):
    """A model step about to run: its agent's backbone and prompts."""

    step: Rollout | Decode
    backbone: LoadedBackbone
    prompt: Packed
