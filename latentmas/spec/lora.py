"""The description of a LoRA adapter that an agent learns."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError, field_validator

from latentmas.errors import LatentMASError
from latentmas.spec._base import Frozen

__all__ = ["LoRA"]


class LoRA(Frozen):
    """Size and place of a LoRA adapter (arXiv 2106.09685) of an agent's own.

    Example:
        >>> LoRA(r=4, target_modules=["q_proj", "v_proj"]).target_modules
        ('q_proj', 'v_proj')
    """

    r: int = Field(default=8, ge=1, le=2**16)
    """Rank of the two factors whose product is added to a layer's weight."""
    alpha: float = Field(default=16.0, gt=0, le=2**20, allow_inf_nan=False)
    """Scale of the product, divided by the rank."""
    target_modules: tuple[str, ...] | None = None
    """Linear layers to adapt, by name or by the end of their names (`"q_proj"`). None: all of the
    decoder, the vocabulary head not among them."""
    rslora: bool = False
    """Divide the scale by the root of the rank instead (arXiv 2312.03732)."""

    @field_validator("target_modules", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        value = (value,) if isinstance(value, str) else value
        if value is not None and not value:
            raise ValueError("is empty; name a layer, or leave it out for all of them")
        return value

    @classmethod
    def read(cls, value: Any, where: str) -> LoRA:
        """A description from plain data.

        Args:
            value: A `LoRA`, a mapping of its fields, or None or True for the defaults.
            where: What the value was given as, for the error.

        Raises:
            LatentMASError: The value does not describe an adapter.
        """
        if isinstance(value, cls):
            return value
        try:
            return cls.model_validate({} if value is None or value is True else value)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or where}: {e['msg']}" for e in error.errors()
            )
            raise LatentMASError(
                f"{where} does not describe a LoRA adapter: {wrong:.300}; its fields are "
                f"{', '.join(cls.model_fields)}"
            ) from error
