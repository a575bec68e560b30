"""Metrics by name: functions that compare an answer with the right one.

A metric is one file here, an entry point of the group `latentmas.evaluation.metrics`, or a function
that `metrics.register` was given.
"""

from __future__ import annotations

from collections.abc import Callable

from latentmas.registry import Registry

__all__ = ["Metric", "metrics"]

Metric = Callable[[str, str], bool]
"""Takes what was written and the right answer, and tells whether they agree."""

metrics: Registry[Metric] = Registry("metric", "latentmas.evaluation.metrics")
"""Every metric by name."""
