"""Machines for cost estimates: operations and bytes per second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from latentmas.errors import LatentMASError, UnknownNameError

__all__ = ["HARDWARE", "SIZES", "Hardware", "find_hardware"]

SIZES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes per element, by data type."""
GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """Peak performance of a machine.

    Example:
        >>> Hardware("mine", flops=60e12, bandwidth=600e9).peak("bfloat16")
        60000000000000.0
    """

    name: str
    """Name of the hardware."""
    flops: float | Mapping[str, float]
    """Operations per second in matrix products: one number, or one per data type of the weights.
    `float16` defaults to the value of `bfloat16`."""
    bandwidth: float
    """Memory bandwidth in bytes per second."""
    memory: float | None = None
    """Memory in bytes. None: no check whether a run fits."""
    launch: float = 0.0
    """Minimum number of seconds per decoder layer (launch overhead). Zero ignores it: the estimate
    is then a lower bound that code launching each operation separately does not reach."""

    def __post_init__(self) -> None:
        peaks = self.flops.values() if isinstance(self.flops, Mapping) else [self.flops]
        if not peaks or not all(number > 0 for number in [*peaks, self.bandwidth]):
            raise LatentMASError(f"hardware {self.name!r}: flops and bandwidth must be above 0")
        if self.launch < 0 or (self.memory is not None and self.memory <= 0):
            raise LatentMASError(
                f"hardware {self.name!r}: launch must be 0 or more, memory above 0 or None"
            )

    def peak(self, dtype: str) -> float:
        """Operations per second for a data type.

        Raises:
            LatentMASError: The value for this type is unknown.
        """
        if not isinstance(self.flops, Mapping):
            return float(self.flops)
        names = (dtype, "bfloat16") if dtype == "float16" else (dtype,)
        for name in names:
            if name in self.flops:
                return float(self.flops[name])
        raise LatentMASError(
            f"hardware {self.name!r} has no flops for {dtype}; it has: {', '.join(self.flops)}; "
            "choose another dtype, or pass your own Hardware"
        )


HARDWARE: dict[str, Hardware] = {
    machine.name: machine
    for machine in (
        # NVIDIA's data sheets: dense matrix products (the sheets' larger numbers are for sparse
        # ones), bfloat16 on tensor cores, float32 without TF32, as PyTorch computes it.
        Hardware("h200", {"bfloat16": 989e12, "float32": 67e12}, 4.8e12, 141 * GIB),  # SXM
        Hardware("h100", {"bfloat16": 989e12, "float32": 67e12}, 3.35e12, 80 * GIB),  # SXM
        Hardware("a100", {"bfloat16": 312e12, "float32": 19.5e12}, 2.039e12, 80 * GIB),  # SXM
        Hardware("l4", {"bfloat16": 121e12, "float32": 30.3e12}, 300e9, 24 * GIB),
        # NVIDIA's white paper on the Ada architecture; bfloat16 accumulates in float32.
        Hardware("rtx4090", {"bfloat16": 165.2e12, "float32": 82.6e12}, 1.008e12, 24 * GIB),
        # One core of a Sapphire Rapids Xeon, measured with torch 2.13: products of matrices of
        # 2048 x 2048 (bfloat16 on AMX), and a read of 256 MiB.
        Hardware("cpu", {"bfloat16": 1.1e12, "float32": 170e9, "float64": 66e9}, 16e9),
    )
}
"""Machines by name."""


def find_hardware(given: str | Hardware) -> Hardware:
    """The machine with that name; a `Hardware` is returned unchanged.

    Raises:
        UnknownNameError: no machine has that name.
    """
    if isinstance(given, Hardware):
        return given
    if given not in HARDWARE:
        raise UnknownNameError("hardware", given, HARDWARE)
    return HARDWARE[given]
