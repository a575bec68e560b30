"""A decoder's single steps in OpenVINO, which keeps the keys and values itself.

Shapes: `B` rows, `D` width, `E` width of a head, `H` heads, `L` columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from latentmas.backbones.fused import fault_of, layout_of
from latentmas.backbones.kv_cache.masks import FULL
from latentmas.backbones.openvino.convert import INPUTS, ROWS, stateful_model
from latentmas.backbones.openvino.module import SingleStep
from latentmas.backbones.openvino.package import import_openvino, open_core

if TYPE_CHECKING:
    from latentmas.backbones._loaded import LoadedBackbone

__all__ = ["OpenVINORows", "OpenVINOStep", "openvino_step"]

TYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""Data types of weights, with OpenVINO's names."""


class OpenVINOStep:
    """The converted and compiled step of a backbone; it holds a copy of the decoder's weights."""

    def __init__(self, backbone: LoadedBackbone) -> None:
        """Convert and compile, which takes seconds.

        Args:
            backbone: A backbone on the CPU whose steps can be fused.
        """
        core, _ = open_core()
        decoder: Any = backbone.family.decoder(backbone.model)
        layout, first = layout_of(decoder), decoder.layers[0].self_attn
        assert layout is not None
        self.dtype, self.layers = backbone.dtype, len(backbone.layer_kinds())
        self.width = int(first.head_dim)
        self.heads = first.k_proj.out_features // self.width
        self._rotary: Any = decoder.rotary_emb
        module = SingleStep(decoder, layout, self.layers, backbone.dtype).eval()
        size = int(decoder.config.hidden_size)
        kind = TYPES[backbone.dtype]
        self._compiled: Any = core.compile_model(
            stateful_model(module, size, self.heads, self.width, self.layers),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": kind,
                "KV_CACHE_PRECISION": kind,
            },
        )
        self._idle: list[Any] = []

    def begin(self, kept: Sequence[Tensor]) -> OpenVINORows:
        """Rows that go on from these keys and values.

        Args:
            kept: Keys and values of each layer, alternating, `(B, H, L, E)`.
        """
        request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        return OpenVINORows(self, request, kept)

    def turns(self, x_B1D: Tensor, positions_B1: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions, (B, E)."""
        cos, sin = self._rotary(x_B1D.float(), positions_B1)
        return cos[:, 0], sin[:, 0]

    def take_back(self, request: Any) -> None:
        """Keep a request for later rows."""
        request.reset_state()
        self._idle.append(request)


def openvino_step(backbone: LoadedBackbone) -> OpenVINOStep | str:
    """The step of a backbone in OpenVINO, or the reason why there is none.

    It is built when it is first needed, and again after the weights have moved.

    Raises:
        LatentMASError: The package openvino is not installed.
    """
    import_openvino()
    key = ("openvino", torch.get_num_threads())
    if key not in backbone.workspace:
        backbone.workspace[key] = _reason(backbone) or _built(backbone)
    found: OpenVINOStep | str = backbone.workspace[key]
    return found


def _reason(backbone: LoadedBackbone) -> str | None:
    """Why a backbone is not converted; None if it may be."""
    if backbone.device.type != "cpu":
        return f"it is on {backbone.device.type!r}; OpenVINO runs on the CPU here"
    if backbone.dtype not in TYPES:
        return f"its weights are {backbone.dtype}; float32 and bfloat16 are converted"
    if set(backbone.layer_kinds()) != {FULL}:
        return "some of its layers do not attend to all positions"
    return backbone.fused if isinstance(backbone.fused, str) else None


def _built(backbone: LoadedBackbone) -> OpenVINOStep | str:
    try:
        step = OpenVINOStep(backbone)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        return f"OpenVINO cannot convert it: {(str(error) or repr(error)).splitlines()[0]}"
    fault = fault_of(backbone, lambda state: step.begin(state.keys_and_values()).append)
    return step if fault is None else f"a step in OpenVINO {fault}"


class OpenVINORows:
    """Rows whose keys and values are in OpenVINO."""

    def __init__(self, step: OpenVINOStep, request: Any, kept: Sequence[Tensor]) -> None:
        self._step, self._request = step, request
        self._rows = np.arange(kept[0].shape[0], dtype=np.int32)
        by_name = {state.name: state for state in request.query_state()}
        self._states = [by_name[f"past.{i}kept.{i}"] for i in range(2 * step.layers)]
        for state, tensor in zip(self._states, kept, strict=True):
            state.state = _to_openvino(tensor)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows; a row may come repeatedly."""
        self._rows = self._rows[np.asarray(rows, dtype=np.int64)]

    def append(self, x_B1D: Tensor, positions_B1: Tensor, mask: Any) -> Tensor:
        """Append one position to every row.

        Args:
            x_B1D: Input embeddings.
            positions_B1: Position ids.
            mask: Additive mask `(B, 1, 1, L)` that includes the new column, or a dictionary with it
                by kind of layer.

        Returns:
            States after the final norm, (B, D), in the backbone's data type.
        """
        cos, sin = self._step.turns(x_B1D, positions_B1)
        mask_B1L = (next(iter(mask.values())) if isinstance(mask, dict) else mask)[:, 0]
        values = (
            tensor.float().contiguous().numpy() for tensor in (x_B1D[:, 0], cos, sin, mask_B1L)
        )
        given = dict(zip(INPUTS, values, strict=True)) | {ROWS: self._rows}
        found = self._request.infer(given, share_inputs=True, share_outputs=False)
        self._rows = np.arange(len(x_B1D), dtype=np.int32)
        return torch.from_numpy(found[0]).to(self._step.dtype)

    def read(self) -> list[Tensor]:
        """Keys and values of each layer, alternating, `(B, H, L, E)`."""
        rows = torch.from_numpy(self._rows).long()
        kind = self._step.dtype
        return [_to_torch(state.state, kind).index_select(0, rows) for state in self._states]

    def close(self) -> None:
        """Give the memory of keys and values back; nothing is appended after it."""
        self._states = []
        self._step.take_back(self._request)


def _to_openvino(tensor: Tensor) -> Any:
    """A copy in OpenVINO; numpy has no bfloat16, so its bits are handed over."""
    from openvino import Shape, Tensor, Type

    if tensor.dtype != torch.bfloat16:
        return Tensor(tensor.contiguous().numpy())  # copies
    made = Tensor(Type.bf16, Shape(list(tensor.shape)))
    made.data.view(np.int16)[:] = tensor.contiguous().view(torch.int16).numpy()
    return made


def _to_torch(tensor: Any, dtype: torch.dtype) -> Tensor:
    """A copy in torch."""
    values = np.array(tensor.data)
    if dtype == torch.bfloat16:
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)
