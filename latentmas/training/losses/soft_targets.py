"""What a link is to make of a state, from the model's own next-token distribution.

Shapes: `D` width, `N` states.
"""

from __future__ import annotations

from torch import Tensor

from latentmas.links import Link, link_kinds
from latentmas.runtime import System

__all__ = ["SoftTargets"]


class SoftTargets:
    """Soft tokens of teacher-forced states, made by frozen links of the kind `soft_token`."""

    def __init__(self, system: System, temperature: float) -> None:
        """Prepare.

        Args:
            system: System whose backbones give distributions and embeddings.
            temperature: Temperature of the softmax.
        """
        self._system, self._temperature = system, temperature
        self._links: dict[tuple[str, str], Link] = {}

    def __call__(self, sender: str, reader: str, h_ND: Tensor) -> Tensor:
        """Soft tokens in the input embeddings of the reader's backbone, (N, D).

        Args:
            sender: the agent whose states they are.
            reader: the agent that is to read them; for its own latents, the sender.
            h_ND: teacher-forced states.
        """
        key = sender, reader
        if key not in self._links:
            source, target = map(self._system.backbone_of, key)
            sizes = [one.planned.info.hidden_size for one in (source, target)]
            kind = link_kinds.get("soft_token")
            role = "inner" if sender == reader else "outer"
            given = {"temperature": self._temperature, "residual": False}
            options = kind.resolve(role, given, *sizes)
            link = kind(options, *sizes)
            link.attach(source, target)
            self._links[key] = link
        return self._links[key](h_ND)
