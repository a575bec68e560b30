"""CPUs: prompts are read with torch, and steps of one position run in OpenVINO."""

from __future__ import annotations

from latentmas.backbones import LoadedBackbone, openvino_step
from latentmas.engine.executors import executors
from latentmas.engine.executors.cached import Cached
from latentmas.engine.sessions._base import DecoderSession
from latentmas.engine.sessions.openvino import OpenVINOSession
from latentmas.errors import LatentMASError

__all__ = ["OpenVINO"]


@executors.register("openvino")
class OpenVINO(Cached):
    """The same as `cached`, with latent steps and text by OpenVINO's kernels.

    Its package is the extra `openvino`. A backbone's step is converted when it is first used, which
    takes seconds and memory for a second copy of the decoder's weights. Gradients take torch's way.
    """

    name = "openvino"
    copies = True

    def session(self, backbone: LoadedBackbone) -> DecoderSession:
        """A feed that hands its keys and values to OpenVINO after the prompt.

        Raises:
            LatentMASError: the package is not installed, or the backbone cannot be converted.
        """
        step = openvino_step(backbone)
        if isinstance(step, str):
            raise LatentMASError(
                f"executor 'openvino' cannot run backbone {backbone.planned.spec.source!r}: "
                f"{step}; choose executor='cached'"
            )
        return OpenVINOSession(backbone, self.position_mode, step)
