"""How many parameters a team has, and how many of them learn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from latentmas.runtime import System

__all__ = ["ParameterCounts", "parameter_counts"]


@dataclass(frozen=True)
class ParameterCounts:
    """Number of parameters of a team."""

    trainable: int
    """Parameters of links and adapters that learn, as the newest training left them; all of them
    if there was none."""
    links: int
    """Parameters of all links."""
    adapters: int
    """Parameters of the agents' own adapters."""
    backbones: int
    """Parameters of all loaded models, each counted once."""

    @property
    def total(self) -> int:
        """All parameters."""
        return self.links + self.adapters + self.backbones

    @property
    def share(self) -> float:
        """Trainable parameters as a share of all parameters, 0 to 1."""
        return self.trainable / self.total if self.total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"total": self.total, "share": self.share}

    def __str__(self) -> str:
        return (
            f"{self.trainable:,} of {self.total:,} parameters are trainable ({self.share:.2%}); "
            f"links {self.links:,}"
        )


def parameter_counts(system: System) -> ParameterCounts:
    """Count the parameters of a team.

    Args:
        system: the team. Links that share weights, and backbones that agents share, count once.
    """
    own = list(system.parameters())
    known = {id(weight) for weight in own}
    bodies: dict[int, int] = {}
    for backbone in system.agent_backbones.values():
        costs = backbone.planned.info.costs
        base = backbone.base or backbone
        if costs is not None and backbone.quantized:  # packed weights count several in one number
            bodies[id(base)] = costs.loaded_parameters
            continue
        weights = {id(p): p.numel() for p in base.model.parameters() if id(p) not in known}
        bodies[id(base)] = sum(weights.values())
    return ParameterCounts(
        trainable=sum(weight.numel() for weight in own if weight.requires_grad),
        links=sum(weight.numel() for weight in system.links.parameters()),
        adapters=sum(weight.numel() for weight in system.adapters.parameters()),
        backbones=sum(bodies.values()),
    )
