"""The package `openvino`, imported when it is needed."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from latentmas.errors import LatentMASError

__all__ = ["import_openvino", "open_core"]

TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """The package `openvino`.

    It reports its use to its makers from the moment it is imported, unless its package for that
    cannot be imported. This import sees to that; a program that has imported openvino itself has
    decided for itself.

    Raises:
        LatentMASError: It is not installed.
    """
    if find_spec("openvino") is None:
        raise LatentMASError(
            "executor 'openvino' needs the package openvino; install it with "
            "pip install 'latentmas[openvino]', or choose executor='cached'"
        )
    if "openvino" not in sys.modules and TELEMETRY not in sys.modules:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
        try:
            return import_module("openvino")
        finally:
            del sys.modules[TELEMETRY]
    return import_module("openvino")


@cache
def open_core() -> tuple[Any, Any]:
    """OpenVINO's runtime, and what makes its frontends.

    They live as long as the process: when the last of them goes, their libraries are unloaded, and
    a Ctrl-C after that was seen to end the process with a segmentation fault.
    """
    openvino = import_openvino()
    from openvino.frontend import FrontEndManager

    return openvino.Core(), FrontEndManager()
