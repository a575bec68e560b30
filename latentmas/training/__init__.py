"""Training of links on `transformers.Trainer`: an inner loop per agent, then an outer loop."""

from latentmas.training.config import InnerConfig, OuterConfig
from latentmas.training.inner import InnerTrainer
from latentmas.training.outer import OuterTrainer

__all__ = ["InnerConfig", "InnerTrainer", "OuterConfig", "OuterTrainer"]
