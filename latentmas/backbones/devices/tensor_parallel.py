"""A backbone split over the processes of a mesh, by transformers' tensor-parallel plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers.distributed import DistributedConfig

from latentmas.backbones.devices.mesh import Mesh
from latentmas.backbones.loading.config import read_config
from latentmas.backbones.loading.files import files_of
from latentmas.errors import WeightsError
from latentmas.plan import PlanBackbone

__all__ = ["TensorSplit", "check_tensor_parallel"]

_DIVIDED = (
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "moe_intermediate_size",
)
"""Numbers of a configuration that the plans divide by the number of processes."""


class _Replicas(DistributedConfig):
    """Groups that hold equal weights: transformers must not shard over them (FSDP)."""

    @property
    def dp_size(self) -> int:
        """Number of groups that weights are sharded over."""
        return 1


@dataclass(frozen=True)
class TensorSplit:
    """A backbone split over the processes of a tensor-parallel group."""

    mesh: Mesh

    @property
    def key(self) -> str:
        """Text that is equal for equal placements."""
        return f"tensor_parallel {self.mesh.tensor_parallel}"

    @property
    def reason(self) -> str:
        """Why fixed buffers and moving backbones do not work."""
        return f"it is split over {self.mesh.tensor_parallel} processes (tensor_parallel)"

    def load(self, auto: Any, source: str, **options: Any) -> Any:
        """Load this process's part of the weights with `auto.from_pretrained`."""
        mesh = self.mesh
        config = _Replicas(
            tp_size=mesh.tensor_parallel, tp_plan="auto", dp_replicate_size=mesh.replicas
        )
        return auto.from_pretrained(source, distributed_config=config, **options)


def check_tensor_parallel(planned: PlanBackbone, size: int) -> None:
    """Check that a backbone can be split over `size` processes, from its configuration alone.

    Raises:
        WeightsError: It cannot; the message lists every reason.
    """
    spec = planned.spec
    if spec.given:
        raise WeightsError(
            f"tensor_parallel={size}: backbone {spec.source!r} is handed over as an object and "
            "stays in one piece; declare its folder or hub id instead"
        )
    config = read_config(files_of(spec), spec.load)
    text = config.get_text_config(decoder=True)
    reasons = []
    if not getattr(text, "base_model_tp_plan", None):
        reasons.append(f"transformers has no tensor-parallel plan for {text.model_type!r}")
    for name in _DIVIDED:
        value = getattr(text, name, None)
        for one in sorted({*value} if isinstance(value, list) else {value} - {None}):
            if one % size:
                reasons.append(f"{name} is {one}, which {size} does not divide")
    if getattr(config, "quantization_config", None) or spec.quantization:
        reasons.append("it is quantized, and quantized weights have not been tried in parts")
    if spec.adapter:
        reasons.append("it has an adapter, whose weights transformers does not split")
    if reasons:
        raise WeightsError(
            f"tensor_parallel={size}: backbone {spec.source!r} cannot be split over {size} "
            f"processes: {'; '.join(reasons)}; choose another number of processes, or spread it "
            "over devices of one process with device_map"
        )
