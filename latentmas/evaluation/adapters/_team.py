"""What the adapters share: opening a team, options given as model arguments, seeds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentmas.errors import DataError, LatentMASError, UnknownNameError, unexpected_keyword
from latentmas.plan import RunOptions
from latentmas.runtime import System
from latentmas.spec import Graph

__all__ = ["OPTIONS", "Seeds", "check_input", "open_system", "read_options", "sampled"]

OPTIONS = (
    *("rounds", "latent_steps", "max_new_tokens", "seed", "repetition_penalty", "retry"),
    *("executor", "position_mode", "refill_threshold"),
)
"""Options of a run that the user may give as model arguments; the rest comes from the harness."""


def open_system(
    team: str, *, device: str | None = None, dtype: str | None = None, seed: int = 0
) -> System:
    """Load a team by its name in a harness.

    Args:
        team: Graph file (its links are untrained), or folder or Hub repository of a saved team.
        device: Device for all agents.
        dtype: Data type of the backbones, overriding what they declare.
        seed: Random seed of untrained links.

    Raises:
        LatentMASError: The team cannot be loaded.
    """
    path = Path(team)
    if path.is_file() or path.suffix.lower() in (".yaml", ".yml", ".json"):
        return Graph.load(path).compile().load(device, dtype=dtype, seed=seed)
    return System.from_pretrained(team, device=device, dtype=dtype)


def check_input(system: System, name: str | None) -> str:
    """The input of the graph that takes the prompt of the harness.

    Args:
        system: The team.
        name: Name that the user gave; None: the only input.

    Raises:
        UnknownNameError: The graph has no such input.
        DataError: The graph has other inputs, which would stay empty.
    """
    inputs = system.plan.graph.inputs
    if name is not None and name not in inputs:
        raise UnknownNameError("input", name, inputs)
    if len(inputs) != 1:
        listing = ", ".join(inputs) or "none"
        raise DataError(
            f"a harness fills one input, but the graph {system.plan.graph.name!r} has: {listing}; "
            "evaluate this team with latentmas.evaluation.evaluate, or give it a single input"
        )
    return inputs[0]


def read_options(harness: str, given: Mapping[str, Any], own: tuple[str, ...]) -> RunOptions:
    """Options of a run that were given as model arguments.

    Args:
        harness: What was called, for messages.
        given: Model arguments that are left.
        own: Names of the adapter's own arguments, for the suggestion.

    Raises:
        TypeError: An argument is unknown.
        LatentMASError: A value is of the wrong type or out of range.
    """
    for name in given:
        if name not in OPTIONS:
            raise unexpected_keyword(harness, name, [*own, *OPTIONS])
    if not isinstance(given.get("seed", 0), int):
        raise LatentMASError(f"{harness}: seed is {given['seed']!r}; give a whole number")
    return RunOptions(**given)


def sampled(
    do_sample: bool | None, temperature: float | None, top_p: float | None, top_k: int | None
) -> dict[str, Any]:
    """Options of sampling from a harness's settings; temperature 0 takes the likeliest token.

    Args:
        do_sample: Whether to sample; None: if any of the others is given.
        temperature: Sampling temperature.
        top_p: Total probability of the tokens to sample from.
        top_k: Number of tokens to sample from; 0 or less: all.
    """
    top_k = top_k if top_k is not None and top_k > 0 else None
    if do_sample is None:
        do_sample = any(value is not None for value in (temperature, top_p, top_k))
    if not do_sample or temperature == 0:
        return {"do_sample": False}
    settings = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    chosen = {name: value for name, value in settings.items() if value is not None}
    return {"do_sample": True, **chosen}


@dataclass
class Seeds:
    """Seeds of requests by prompt: equal in every order, different when a prompt is repeated."""

    base: int
    _asked: Counter[str] = field(default_factory=Counter)

    def next(self, prompt: str) -> int:
        """The seed of the next request with this prompt."""
        number = self._asked[prompt]
        self._asked[prompt] += 1
        name = f"{self.base}/{number}/{prompt}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.sha256(name).digest()[:4], "big")
