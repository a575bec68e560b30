"""Metrics by name: functions that compare an answer with the correct one.

A metric is a file in this package, an entry point in the group `latentmas.evaluation.metrics`, or a
function registered with `metrics.register`.
"""

from __future__ import annotations

from collections.abc import Callable

from latentmas.registry import Registry

__all__ = ["Metric", "metrics"]

Metric = Callable[[str, str], bool]
"""Function that takes a generated text and the correct answer and returns whether they agree."""

metrics: Registry[Metric] = Registry("metric", "latentmas.evaluation.metrics")
"""Every metric by name."""
