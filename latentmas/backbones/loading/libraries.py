"""Optional libraries that a backbone needs."""

from __future__ import annotations

from importlib.util import find_spec

from latentmas.backbones.loading.refusals import RefusedBackboneError
from latentmas.spec import Quantization

__all__ = ["check_library"]


def check_library(quantization: Quantization) -> None:
    """Check that the library of a quantization is installed, without importing it.

    Raises:
        RefusedBackboneError: LM206, it is not.
    """
    package = quantization.package
    if find_spec(package) is None:
        raise RefusedBackboneError(
            "LM206",
            f"quantization {quantization.kind!r} needs the package {package}",
            "install it with pip install 'latentmas[quantization]'",
        )
