"""Small cards: backbones wait in the host's memory and take turns on the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from latentmas.backbones import LoadedBackbone
from latentmas.engine.executors import executors
from latentmas.engine.executors.cached import Cached
from latentmas.errors import LatentMASError
from latentmas.plan import PositionMode

__all__ = ["Offload"]

MARGIN = 0.15
"""Share of a device's memory that weights leave to states and activations."""


@executors.register("offload")
class Offload(Cached):
    """Brings a backbone to the device for its turns; others leave, longest unused first.

    They leave only when memory does not suffice. Weights are frozen, so leaving costs nothing and
    coming one copy, from pinned memory on CUDA.
    """

    name = "offload"
    swaps = True

    def __init__(
        self,
        position_mode: PositionMode = "mask",
        *,
        device: str | None = None,
        budget: int | None = None,
    ) -> None:
        """An executor.

        Args:
            position_mode: how positions are counted.
            device: where turns run; None: the first CUDA device, or the CPU where there is none.
            budget: bytes of weights that may be there at once; None: what the device has free, but
                for a margin.
        """
        super().__init__(position_mode)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.budget = budget
        self.moves: list[str] = []
        """What came and left, in order: `"+source"`, `"-source"`."""
        self._here: dict[int, LoadedBackbone] = {}
        self._host: dict[int, Tensor] = {}
        """A tensor's values in the host's memory, by its id."""
        self._moved: set[int] = set()
        """Tensors whose values are on the device; backbones may share them under adapters."""

    @contextmanager
    def running(self, links: nn.ModuleDict) -> Iterator[None]:
        """Links go to the device for the time of a run; all is put back after it."""
        homes = {link: p.device for link in links.values() for p in [*link.parameters()][:1]}
        try:
            links.to(self.device)
            yield
        finally:
            for backbone in list(self._here.values()):
                self._leave(backbone)
            self._host.clear()
            for link, home in homes.items():
                link.to(home)

    def prepare(self, backbone: LoadedBackbone) -> None:
        """Have a backbone on the device, and make room for it.

        Raises:
            LatentMASError: it is on several devices, or it alone is larger than the budget.
        """
        if backbone.split is not None:
            raise LatentMASError(
                f"executor 'offload' moves whole backbones, and {backbone.planned.spec.source!r} "
                f"stays where it is: {backbone.split.reason}; choose executor='cached'"
            )
        if id(backbone) in self._here:
            self._here[id(backbone)] = self._here.pop(id(backbone))  # the last used is the last
            return
        size, budget = _bytes([backbone]), self._room()
        if size > budget:
            raise LatentMASError(
                f"backbone {backbone.planned.spec.source!r} has {size / 2**20:.0f} MiB of weights; "
                f"{budget / 2**20:.0f} MiB may be on {str(self.device)!r}; choose a smaller "
                "backbone or dtype, or device='cpu'"
            )
        while self._here and _bytes([*self._here.values(), backbone]) > budget:
            self._leave(next(iter(self._here.values())))
        self._come(backbone)

    def _room(self) -> int:
        if self.budget is not None:
            return self.budget
        if self.device.type != "cuda":
            return 1 << 62
        free, whole = torch.cuda.mem_get_info(self.device)
        return int(free + _bytes(self._here.values()) - MARGIN * whole)

    def _come(self, backbone: LoadedBackbone) -> None:
        pinned = self.device.type == "cuda"
        for key, tensor in _tensors([backbone]).items():
            if key in self._moved:
                continue
            if key not in self._host:
                self._host[key] = tensor.data.pin_memory() if pinned else tensor.data
            tensor.data = self._host[key].to(self.device, non_blocking=True)
            self._moved.add(key)
        backbone.workspace.clear()
        self._here[id(backbone)] = backbone
        self.moves.append(f"+{_name(backbone)}")

    def _leave(self, backbone: LoadedBackbone) -> None:
        del self._here[id(backbone)]
        needed = _tensors(self._here.values())
        for key, tensor in _tensors([backbone]).items():
            if key not in needed:
                tensor.data = self._host[key]
                self._moved.discard(key)
        backbone.workspace.clear()
        self.moves.append(f"-{_name(backbone)}")


def _name(backbone: LoadedBackbone) -> str:
    spec = backbone.planned.spec
    return spec.source if spec.adapter is None else f"{spec.source} with {spec.adapter}"


def _tensors(backbones: Iterable[LoadedBackbone]) -> dict[int, Tensor]:
    """Weights and buffers, each once: tied ones, and those that views share, are one tensor."""
    models = [backbone.model for backbone in backbones]
    return {id(t): t for model in models for t in (*model.parameters(), *model.buffers())}


def _bytes(backbones: Iterable[LoadedBackbone]) -> int:
    return sum(tensor.nbytes for tensor in _tensors(backbones).values())
