"""Training of links on `transformers.Trainer`: inner loop, edge loop, outer loop."""

from latentmas.training.config import EdgeConfig, InnerConfig, OuterConfig
from latentmas.training.edges import EdgeTrainer
from latentmas.training.estimate import DryRun, Estimate, estimate
from latentmas.training.inner import InnerTrainer
from latentmas.training.outer import OuterTrainer
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
    "estimate",
    "stability",
]
