"""Training of links on `transformers.Trainer`: inner, edge, rollout and outer loop."""

from latentmas.training.config import EdgeConfig, InnerConfig, OuterConfig, RolloutConfig
from latentmas.training.drift import rollout_accuracy
from latentmas.training.edges import EdgeTrainer
from latentmas.training.estimate import DryRun, Estimate, estimate
from latentmas.training.inner import InnerTrainer
from latentmas.training.outer import OuterTrainer
from latentmas.training.rollouts import RolloutTrainer
from latentmas.training.telemetry import stability

__all__ = [
    "DryRun",
    "EdgeConfig",
    "EdgeTrainer",
    "Estimate",
    "InnerConfig",
    "InnerTrainer",
    "OuterConfig",
    "OuterTrainer",
    "RolloutConfig",
    "RolloutTrainer",
    "estimate",
    "rollout_accuracy",
    "stability",
]
