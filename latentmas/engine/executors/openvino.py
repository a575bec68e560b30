"""CPUs: prompts are read with torch, and steps of one position run in OpenVINO."""

from __future__ import annotations

import warnings

from latentmas.backbones import LoadedBackbone, openvino_step
from latentmas.engine.executors import executors
from latentmas.engine.executors.cached import Cached
from latentmas.engine.sessions._base import DecoderSession
from latentmas.engine.sessions.openvino import OpenVINOSession

__all__ = ["OpenVINO"]

WARNED = "openvino: warned"
"""Key of the reason in a backbone's workspace, once it was told."""


@executors.register("openvino")
class OpenVINO(Cached):
    """The same as `cached`, with latent steps and text by OpenVINO's kernels.

    Its package is the extra `openvino`. A backbone's step is converted when it is first used, which
    takes seconds and memory for a second copy of the decoder's weights. Gradients take torch's way,
    and so do backbones that cannot be converted; a warning says why.
    """

    name = "openvino"
    copies = True

    def session(self, backbone: LoadedBackbone) -> DecoderSession:
        """A feed that hands its keys and values to OpenVINO after the prompt, where it can.

        Raises:
            LatentMASError: the package is not installed.
        """
        step = openvino_step(backbone)
        if not isinstance(step, str):
            return OpenVINOSession(backbone, self.position_mode, step)
        if backbone.workspace.get(WARNED) != step:
            backbone.workspace[WARNED] = step
            source = backbone.planned.spec.source
            warnings.warn(
                f"backbone {source!r} runs without OpenVINO, as with executor 'cached': {step}",
                stacklevel=2,
            )
        return super().session(backbone)
