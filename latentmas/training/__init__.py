"""Training of links on `transformers.Trainer`: an inner loop per agent, then an outer loop."""

from latentmas.training.config import InnerConfig, OuterConfig
from latentmas.training.estimate import DryRun, Estimate, estimate
from latentmas.training.inner import InnerTrainer
from latentmas.training.outer import OuterTrainer
from latentmas.training.telemetry import stability

__all__ = [
    "DryRun",
    "Estimate",
    "InnerConfig",
    "InnerTrainer",
    "OuterConfig",
    "OuterTrainer",
    "estimate",
    "stability",
]
