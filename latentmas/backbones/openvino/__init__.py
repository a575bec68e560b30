"""Single steps of decoders in OpenVINO, on CPUs."""

from __future__ import annotations

from latentmas.backbones.openvino.step import OpenVINORows, OpenVINOStep, openvino_step

__all__ = ["OpenVINORows", "OpenVINOStep", "openvino_step"]
