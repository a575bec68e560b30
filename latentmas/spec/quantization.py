"""How a backbone's weights are quantised while they are loaded."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from latentmas.spec._base import Frozen

__all__ = ["Quantization", "QuantizationKind"]

QuantizationKind = Literal[
    "torchao:int8_weight_only",
    "torchao:float8_weight_only",
    "bitsandbytes:int8",
    "bitsandbytes:nf4",
    "bitsandbytes:fp4",
]
FOUR_BITS = ("bitsandbytes:nf4", "bitsandbytes:fp4")


class Quantization(Frozen):
    """Quantization of linear layers; embeddings, norms and the vocabulary head keep their type.

    Example:
        >>> Quantization(kind="bitsandbytes:nf4", double_quant=True).package
        'bitsandbytes'
    """

    kind: QuantizationKind
    """Library and type of the quantised weights. All kinds carry exact gradients to the inputs of a
    layer, which training links needs."""
    skip_modules: tuple[Annotated[str, StringConstraints(pattern=r"^[\w.]+$")], ...] = ()
    """Names of further modules that keep their type, such as `"down_proj"`."""
    double_quant: bool = False
    """Quantise the scales as well: 0.4 bits fewer per weight. Only for 4-bit kinds."""
    threshold: float = Field(default=0.0, ge=0)
    """Only for `bitsandbytes:int8`: columns with an activation beyond this size are multiplied in
    half precision. 0 turns that off. The library's own default is 6.0; which columns these are then
    depends on all rows of a batch, so that a batch no longer equals its rows alone."""

    @model_validator(mode="after")
    def _options_of_kind(self) -> Quantization:
        if self.double_quant and self.kind not in FOUR_BITS:
            raise ValueError(
                f"double_quant is an option of {' and '.join(FOUR_BITS)}, not of {self.kind}; "
                "leave it out"
            )
        if self.threshold and self.kind != "bitsandbytes:int8":
            raise ValueError(
                f"threshold is an option of bitsandbytes:int8, not of {self.kind}; leave it out"
            )
        return self

    @property
    def package(self) -> str:
        """The Python package that quantises."""
        return self.kind.partition(":")[0]

    @property
    def bits(self) -> float:
        """Stored bits per quantised weight, with the scales of 4-bit blocks of 64 weights."""
        if self.kind not in FOUR_BITS:
            return 8.0
        return 4.0 + (8 / 64 + 32 / (64 * 256) if self.double_quant else 32 / 64)


def as_quantization(value: Any) -> Any:
    """A kind given as text, as the mapping that the record takes."""
    return {"kind": value} if isinstance(value, str) else value
