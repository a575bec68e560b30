"""Random models for tests, examples and measurements, without a download."""

from latentmas.testing._random import random_system
from latentmas.testing._tiny import TINY_FAMILIES, tiny_backbone

__all__ = ["TINY_FAMILIES", "random_system", "tiny_backbone"]
