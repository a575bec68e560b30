"""Executors: ways to run a plan's model steps, one a file, found by name, interchangeable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.registry import Registry

if TYPE_CHECKING:
    from latentmas.engine.executors._base import Executor

__all__ = ["executors"]

executors: Registry[type[Executor]] = Registry("executor", "latentmas.engine.executors")
"""Executors by name."""
