"""From a torch module to an OpenVINO model that keeps keys and values between its calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from latentmas.backbones.openvino.module import SingleStep
from latentmas.backbones.openvino.package import open_core

__all__ = ["INPUTS", "ROWS", "stateful_model"]

INPUTS = ("x", "cos", "sin", "mask")
"""Names of the inputs, in the order of `SingleStep.forward`."""
ROWS = "rows"
"""Name of the input that says which row of the last call each row goes on from."""


@torch.no_grad()
def stateful_model(module: SingleStep, size: int, heads: int, width: int, layers: int) -> Any:
    """Convert a step.

    The frontend is called directly: `openvino.convert_model` reports its use to OpenVINO's
    telemetry service, this does not.

    Args:
        module: The step.
        size: Width of the model.
        heads: Number of key-value heads.
        width: Width of a head.
        layers: Number of layers.

    Returns:
        An `openvino.Model` with the inputs `INPUTS` and `ROWS`, one output, and a state for the
        keys and the values of each layer, in the order of layers, keys first.
    """
    from openvino import Dimension, PartialShape
    from openvino._offline_transformations import apply_make_stateful_transformation
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    rows, columns = 2, 5
    past = torch.zeros(rows, heads, columns, width, dtype=module.dtype)
    turn = torch.zeros(rows, width)
    example = (torch.zeros(rows, size), turn, turn, torch.zeros(rows, 1, columns + 1))
    decoder = TorchScriptPythonDecoder(
        module, example_input=(*example, *[past] * 2 * layers), trace_kwargs={"check_trace": False}
    )
    frontend = open_core()[1].load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    names = [f"past.{i}" for i in range(2 * layers)]
    some = Dimension(-1)
    shapes = [[some, size], [some, width], [some, width], [some, 1, some]]
    shapes += [[some, heads, some, width]] * len(names)
    for port, name, shape in zip(model.inputs, (*INPUTS, *names), shapes, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(PartialShape(shape))
    for i, port in enumerate(model.outputs):
        port.get_tensor().set_names({f"kept.{i - 1}" if i else "h"})
    _choose_rows(model, names)
    apply_make_stateful_transformation(model, {name: f"kept.{i}" for i, name in enumerate(names)})
    _begin_empty(model, heads, width)
    return model


def _choose_rows(model: Any, names: list[str]) -> None:
    """Put a choice of rows before each state; the plugin fuses it with attention."""
    from openvino import Dimension, PartialShape, Type, opset13

    chosen = opset13.parameter(PartialShape([Dimension(-1)]), dtype=Type.i32, name=ROWS)
    chosen.output(0).get_tensor().add_names({ROWS})
    model.add_parameters([chosen])
    for name in names:
        port = model.input(name)
        readers = port.get_target_inputs()
        gathered = opset13.gather(port, chosen, opset13.constant(0))
        for reader in readers:
            reader.replace_source_output(gathered.output(0))
    model.validate_nodes_and_infer_types()


def _begin_empty(model: Any, heads: int, width: int) -> None:
    """Let states that are not filled have no columns."""
    from openvino import opset13

    rows = opset13.gather(
        opset13.shape_of(model.input(INPUTS[0]), output_type="i64"),
        opset13.constant([0]),
        opset13.constant(0),
    )
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            sizes = [opset13.constant(np.array([n], np.int64)) for n in (heads, 0, width)]
            kind = node.get_output_element_type(0)
            empty = opset13.convert(opset13.constant(0.0, dtype=np.float32), kind.get_type_name())
            shape = opset13.concat([rows, *sizes], 0)
            node.set_arguments([opset13.broadcast(empty, shape)])
    model.validate_nodes_and_infer_types()
