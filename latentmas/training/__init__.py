"""Training of links on `transformers.Trainer`: loops in a registry, one verb for all of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from latentmas.training.loops import Choice, Loop, Start, loops

if TYPE_CHECKING:
    from latentmas.training._estimate import DryRun, Estimate, estimate
    from latentmas.training._trainer import LinkTrainer
    from latentmas.training.config import (
        EdgeConfig,
        InnerConfig,
        LinkConfig,
        OuterConfig,
        RolloutConfig,
    )
    from latentmas.training.drift import rollout_accuracy
    from latentmas.training.edges import EdgeTrainer
    from latentmas.training.inner import InnerTrainer
    from latentmas.training.outer import OuterTrainer
    from latentmas.training.planning import Stage, TrainingPlan, plan_training
    from latentmas.training.rollouts import RolloutTrainer
    from latentmas.training.telemetry import stability
    from latentmas.training.verb import TrainedStage, Training, train

# Imported when first used: the registry of loops is of use without torch.
_HOMES = {
    "_trainer": ("LinkTrainer",),
    "config": ("EdgeConfig", "InnerConfig", "LinkConfig", "OuterConfig", "RolloutConfig"),
    "drift": ("rollout_accuracy",),
    "edges": ("EdgeTrainer",),
    "_estimate": ("DryRun", "Estimate", "estimate"),
    "inner": ("InnerTrainer",),
    "outer": ("OuterTrainer",),
    "planning": ("Stage", "TrainingPlan", "plan_training"),
    "rollouts": ("RolloutTrainer",),
    "telemetry": ("stability",),
    "verb": ("TrainedStage", "Training", "train"),
}

__all__ = [
    "Choice",
    "DryRun",
    "EdgeConfig",
    "EdgeTrainer",
    "Estimate",
    "InnerConfig",
    "InnerTrainer",
    "LinkConfig",
    "LinkTrainer",
    "Loop",
    "OuterConfig",
    "OuterTrainer",
    "RolloutConfig",
    "RolloutTrainer",
    "Stage",
    "Start",
    "TrainedStage",
    "Training",
    "TrainingPlan",
    "estimate",
    "loops",
    "plan_training",
    "rollout_accuracy",
    "stability",
    "train",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
