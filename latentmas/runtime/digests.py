"""Digests of the weights of links."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["link_digests"]


def link_digests(system: System) -> dict[str, str]:
    """SHA-256 (hex) of each link's weights (names, types, shapes and bytes), by id."""
    return {id: _digest(system.link(id).state_dict()) for id in system.link_ids()}


def _digest(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # Hash the raw bytes: numpy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
