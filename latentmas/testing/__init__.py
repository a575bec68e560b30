"""Small random models for tests, docs and users' own tests; no download."""

from latentmas.testing._tiny import TINY_FAMILIES, tiny_backbone

__all__ = ["TINY_FAMILIES", "tiny_backbone"]
