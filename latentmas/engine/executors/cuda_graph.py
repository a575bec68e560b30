"""Each step of one position is captured once as a CUDA graph, inner link inside, and replayed."""

from __future__ import annotations

from latentmas.backbones import LoadedBackbone
from latentmas.engine.executors import executors
from latentmas.engine.executors.static import Static
from latentmas.engine.sessions._base import DecoderSession
from latentmas.errors import LatentMASError

__all__ = ["CudaGraph"]


@executors.register("cuda_graph")
class CudaGraph(Static):
    """One graph for each backbone, inner link, number of rows and capacity."""

    name = "cuda_graph"
    captures = True

    def session(self, backbone: LoadedBackbone) -> DecoderSession:
        """A feed that replays graphs.

        Raises:
            LatentMASError: the backbone is not on a CUDA device, or cannot run over fixed buffers.
        """
        if backbone.device.type != "cuda":
            raise LatentMASError(
                f"executor 'cuda_graph' needs a CUDA device; backbone "
                f"{backbone.planned.spec.source!r} is on {backbone.device.type!r}; load with "
                "device='cuda', or choose executor='cached'"
            )
        return super().session(backbone)
