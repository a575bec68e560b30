"""`training.json` in an output folder: what the training page says of settings and data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Any

from latentmas.atomic import write_text_atomically
from latentmas.training.config import LinkConfig
from latentmas.training.monitoring.recording import plain_arguments

__all__ = ["write_settings"]

FILE = "training.json"
NOTHING: tuple[Any, ...] = ("", "none", [])
"""Defaults that transformers writes as an empty list."""


def write_settings(folder: Path, facts: Mapping[str, Any], args: LinkConfig) -> Path:
    """Write the facts of a training, and its arguments apart from those left at their default.

    Args:
        folder: Output folder.
        facts: Facts of the record: loop, data, links.
        args: Arguments of the trainer.
    """
    given, usual = plain_arguments(args), _defaults(type(args))
    changed = {
        name: value
        for name, value in given.items()
        if name in usual and value != usual[name] and (value or usual[name] not in NOTHING)
    }
    rest = {name: value for name, value in given.items() if name not in changed}
    content = {**facts, "changed": changed, "defaults": rest}
    return write_text_atomically(folder / FILE, json.dumps(content, indent=2, default=str) + "\n")


def _defaults(kind: type[LinkConfig]) -> dict[str, Any]:
    """Default by field, as `to_dict` writes it; None stands for what is chosen later."""
    found: dict[str, Any] = {}
    for field in fields(kind):
        made = field.default_factory
        value = made() if made is not MISSING else field.default
        if value is not None and value is not MISSING:
            found[field.name] = value.value if isinstance(value, Enum) else value
        elif value is None and field.name in OWN:
            found[field.name] = None
    return found


OWN = frozenset(
    {
        *("columns", "max_length", "targets", "rounds", "latent_steps", "round_weights"),
        *("eval_max_new_tokens", "early_stopping_patience", "metric_for_best_model", "eval_steps"),
    }
)
"""Fields whose None is not filled in by transformers."""
