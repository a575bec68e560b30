"""Training loops: ways to train links, one a file, found by name.

A loop is one file here, an entry point of the group `latentmas.training.loops`, or a class that
`loops.register` was given. Importing this costs no torch.
"""

from __future__ import annotations

from latentmas.registry import Registry
from latentmas.training.loops._base import Choice, Loop, Start

__all__ = ["Choice", "Loop", "Start", "in_order", "loops"]

loops: Registry[type[Loop]] = Registry("training loop", "latentmas.training.loops")
"""Loops by name."""


def in_order() -> dict[str, type[Loop]]:
    """All loops by name, in the order in which a team goes through them."""
    found = {name: loops.get(name) for name in loops.names()}
    return dict(sorted(found.items(), key=lambda item: (item[1].order, item[0])))
