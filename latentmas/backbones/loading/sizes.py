"""Checks of the sizes in a model's configuration, made before anything is built from it.

A configuration class may create one object per layer, and the cost model builds the whole model
without weights, so a small file that claims a million layers would take minutes and all memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedConfig

from latentmas.errors import WeightsError

__all__ = ["check_sizes", "judge_sizes"]

_BOUNDS = (
    # Larger than any published model: the deepest have about 130 layers, the widest
    # about 54,000 columns in an MLP, and the largest vocabularies about a million entries.
    (re.compile(r"layers?$|^depth$"), 1024),
    (re.compile(r"vocab_size$"), 2**24),
    (re.compile(r"(heads?|experts|heads_kv)$"), 2**14),
    (
        re.compile(
            r"(hidden|intermediate|embedding|inner|ffn|mlp)_size$|_dim$|^dim$"
            r"|^d_(model|ff|kv|inner)$|^n_(embd|inner)$"
        ),
        2**20,
    ),
)
"""Field names and their maximum value; the first match applies."""


def check_sizes(source: str, **options: Any) -> None:
    """Reject a configuration whose sizes exceed those of any known model.

    Args:
        source: Hub id or folder.
        **options: Further arguments of `from_pretrained`, such as `revision`.

    Raises:
        WeightsError: A size is too large; the message names the field, its value and the bound.
        OSError: The configuration cannot be read; the message comes from transformers.
    """
    judge_sizes(source, PreTrainedConfig.get_config_dict(source, **options)[0])


def judge_sizes(source: str, data: dict[str, Any]) -> None:
    """Same as `check_sizes`, for fields that have already been read."""
    for name, value in _fields(data):
        most = next((most for names, most in _BOUNDS if names.search(name)), None)
        if most is not None and type(value) is int and value > most:
            shown = f"{value:,}" if value < 10**18 else "more than 10**18"
            raise WeightsError(
                f"the configuration of {source!r} has {name} = {shown}, and no known model "
                f"has more than {most:,}; correct it, or download the model again"
            )


def _fields(data: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Fields of a configuration and of nested ones, such as `text_config`."""
    pending = [data]
    while pending:
        for name, value in pending.pop().items():
            if isinstance(value, dict):
                pending.append(value)
            yield str(name), value
