"""The registry of link kinds; importing it does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.registry import Registry

if TYPE_CHECKING:
    from latentmas.links._base import Link

__all__ = ["link_kinds"]

link_kinds: Registry[type[Link]] = Registry("link kind", "latentmas.links")
"""Kinds by name; `@link_kinds.register("mine")` adds one from any module."""
