"""A frozen language model, as declared."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from latentmas.redact import redact
from latentmas.spec._base import Frozen

__all__ = ["Backbone", "DType"]

DType = Literal["auto", "float64", "float32", "bfloat16", "float16"]


class Backbone(Frozen):
    """A frozen causal language model that one or more agents run on.

    Declaring loads nothing. Agents whose backbones are equal share one loaded model.

    Example:
        >>> Backbone("Qwen/Qwen3-1.7B", dtype="bfloat16").source
        'Qwen/Qwen3-1.7B'
    """

    source: str
    """Hub id, folder or GGUF file (needs the extra `gguf`); `package:NAME/path` for a folder or
    file inside an installed Python package."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    dtype: DType = "auto"
    """Weights' type; `auto` takes the checkpoint's own."""
    family: str | None = None
    """Name in the backbone registry; found by `model_type` when left out."""
    trust_remote_code: bool = False
    """Run Python code from the model's repository. Leave it off unless you have read that code."""
    attention: str | None = Field(default=None)
    """`attn_implementation` of transformers, such as `"sdpa"`; None leaves it to them."""

    @field_validator("source", "revision")
    @classmethod
    def _no_secret(cls, value: str | None) -> str | None:
        if value is not None and redact(value) != value:
            raise ValueError(
                "holds a secret, which would be saved with the team; give the plain id or folder: "
                "the hub's client reads the token from HF_TOKEN"
            )
        return value

    def __init__(*args: Any, **fields: Any) -> None:
        """Take the source by position or by name, and other fields by name."""
        self, *rest = args
        if len(rest) > 1 or (rest and "source" in fields):
            raise TypeError("Backbone takes one source; other fields are given by name")
        super(Backbone, self).__init__(**fields, **({"source": rest[0]} if rest else {}))
