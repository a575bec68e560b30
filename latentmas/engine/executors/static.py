"""Buffers of fixed size, without graphs: what `cuda_graph` captures, on any device."""

from __future__ import annotations

from collections.abc import Sequence

from latentmas.backbones import LoadedBackbone
from latentmas.engine.executors import executors
from latentmas.engine.executors._base import Executor
from latentmas.engine.sessions._base import DecoderSession
from latentmas.engine.sessions.static import StaticSession
from latentmas.engine.warm_up import ExpectedSteps, WarmUp, capture_steps
from latentmas.errors import LatentMASError
from latentmas.plan import PositionMode

__all__ = ["Static"]


@executors.register("static")
class Static(Executor):
    """Keeps states in buffers that later turns use again; not differentiable."""

    name = "static"
    learns = False
    reuses = True
    keeps = "fixed"

    def __init__(self, position_mode: PositionMode = "mask", *, compile_step: bool = False) -> None:
        """An executor.

        Args:
            position_mode: how positions are counted.
            compile_step: run the step through `torch.compile`; the first one takes minutes.
        """
        super().__init__(position_mode)
        self.compile_step = compile_step

    def warm_up(self, expected: Sequence[ExpectedSteps]) -> WarmUp:
        """Make the buffers of all turns and capture their steps, where steps are captured."""
        if not self.captures:
            return super().warm_up(expected)
        for backbone in {id(own.backbone): own.backbone for own in expected}.values():
            self.session(backbone)  # refuses what cannot run
        return capture_steps(self.name, expected, compile_step=self.compile_step)

    def session(self, backbone: LoadedBackbone) -> DecoderSession:
        """A feed over fixed buffers.

        Raises:
            LatentMASError: the backbone cannot run over them.
        """
        if backbone.static_reason is not None:
            raise LatentMASError(
                f"backbone {backbone.planned.spec.source!r} cannot run on fixed buffers: "
                f"{backbone.static_reason}; choose executor='cached'"
            )
        return StaticSession(
            backbone, self.position_mode, captures=self.captures, compile_step=self.compile_step
        )
