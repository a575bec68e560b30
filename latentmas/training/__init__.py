"""Training of links on `transformers.Trainer`: loops in a registry, one verb for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.lazy import imported_when_used
from latentmas.training.loops import Choice, Loop, Start, loops
from latentmas.training.published import (
    PublishedRows,
    PublishedSet,
    published_sets,
    read_published,
)

if TYPE_CHECKING:
    from latentmas.training.config import (
        EdgeConfig,
        InnerConfig,
        LinkConfig,
        OuterConfig,
        RolloutConfig,
    )
    from latentmas.training.edges import EdgeTrainer
    from latentmas.training.inner import InnerTrainer
    from latentmas.training.memory.estimate import DryRun, Estimate, estimate
    from latentmas.training.monitoring.drift import rollout_accuracy
    from latentmas.training.monitoring.telemetry import stability
    from latentmas.training.outer import OuterTrainer
    from latentmas.training.planning import Stage, TrainingPlan, plan_training
    from latentmas.training.rollouts import RolloutTrainer
    from latentmas.training.trainer.trainer import LinkTrainer
    from latentmas.training.verb import TrainedStage, Training, train

# Imported when first used: the registry of loops is of use without torch.
_HOMES = {
    "DryRun": "memory.estimate",
    "EdgeConfig": "config",
    "EdgeTrainer": "edges",
    "Estimate": "memory.estimate",
    "InnerConfig": "config",
    "InnerTrainer": "inner",
    "LinkConfig": "config",
    "LinkTrainer": "trainer.trainer",
    "OuterConfig": "config",
    "OuterTrainer": "outer",
    "RolloutConfig": "config",
    "RolloutTrainer": "rollouts",
    "Stage": "planning",
    "TrainedStage": "verb",
    "Training": "verb",
    "TrainingPlan": "planning",
    "estimate": "memory.estimate",
    "plan_training": "planning",
    "rollout_accuracy": "monitoring.drift",
    "stability": "monitoring.telemetry",
    "train": "verb",
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
    "PublishedRows",
    "PublishedSet",
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
    "published_sets",
    "read_published",
    "rollout_accuracy",
    "stability",
    "train",
]

__getattr__ = imported_when_used(__name__, _HOMES)
