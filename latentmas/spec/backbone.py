"""A frozen language model, as declared."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from latentmas.errors import GraphError, Problem
from latentmas.redact import redact
from latentmas.spec._base import Frozen
from latentmas.spec._keys import correct_keys, value_problems

__all__ = ["Backbone", "DType", "full_dtype"]

DType = Literal["auto", "float64", "float32", "bfloat16", "float16"]
_SHORT: dict[str, DType] = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "f16": "float16",
    "half": "float16",
    "fp32": "float32",
    "f32": "float32",
    "float": "float32",
    "fp64": "float64",
    "f64": "float64",
    "double": "float64",
}
"""Short names of data types."""
_LATER = ("adapter", "adapter_revision")
"""Fields that are written only where they are set."""


def full_dtype(value: Any) -> Any:
    """The full name of a type: `"bf16"`, `"torch.bfloat16"`, `torch.bfloat16` → `"bfloat16"`.

    A value that does not name a type is returned unchanged.
    """
    torch_dtype = type(value).__name__ == "dtype" and type(value).__module__ == "torch"
    if not isinstance(value, str) and not torch_dtype:
        return value
    name = str(value).removeprefix("torch.")
    return _SHORT.get(name, name)


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
    """Data type of the weights; `auto` takes the checkpoint's own. Short names such as `"bf16"` and
    `"half"`, and torch's types, are accepted and stored by their full names."""
    family: str | None = None
    """Backbone family: a name in the registry. None: selected by `model_type`."""
    trust_remote_code: bool = False
    """Run Python code from the model's repository. Leave it off unless you have read that code."""
    attention: str | None = Field(default=None)
    """Attention implementation of transformers, such as `"sdpa"`. None: its default."""
    adapter: str | None = None
    """LoRA adapter on top of the model: a folder that PEFT wrote, or a hub id. Backbones that are
    equal but for their adapters share one loaded model. Needs the extra `peft`."""
    adapter_revision: str | None = None
    """Branch, tag or commit of the adapter on the hub."""

    @field_validator("dtype", mode="before")
    @classmethod
    def _full_name(cls, value: Any) -> Any:
        return full_dtype(value)

    @field_validator("source", "revision", "adapter", "adapter_revision")
    @classmethod
    def _no_secret(cls, value: str | None) -> str | None:
        if value is not None and redact(value) != value:
            raise ValueError(
                "holds a secret, which would be saved with the team; give the plain id or folder: "
                "the hub's client reads the token from HF_TOKEN"
            )
        return value

    @field_validator("adapter")
    @classmethod
    def _named_adapter(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is empty; give a folder or a hub id, or leave it out")
        return value

    @field_validator("adapter_revision")
    @classmethod
    def _of_an_adapter(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("adapter") is None:
            raise ValueError("is given without an adapter; add adapter=…, or leave it out")
        return value

    @model_serializer(mode="wrap")
    def _without_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what later versions added and is not used: digests stay as they were."""
        data: dict[str, Any] = write(self)
        return {key: v for key, v in data.items() if key not in _LATER or v is not None}

    @property
    def base(self) -> Backbone:
        """The same backbone without its adapter: the model whose weights are loaded."""
        return self.model_copy(update={"adapter": None, "adapter_revision": None})

    def __init__(*args: Any, **fields: Any) -> None:
        """Accept the source by position or by name, and the other fields by name only.

        Raises:
            GraphError: LM100 for each field that is unknown or does not fit.
        """
        self, *rest = args
        if len(rest) > 1 or (rest and "source" in fields):
            raise TypeError("Backbone takes one source; pass the other fields by name")
        fields |= {"source": rest[0]} if rest else {}
        corrected, problems = correct_keys(fields, Backbone)
        try:
            super(Backbone, self).__init__(**corrected)
        except ValidationError as error:
            problems += value_problems(error)
        if problems:
            raise GraphError([_argument(problem) for problem in problems], what="this Backbone")

    # Tells pydantic that this `__init__` adds no validation of its own. pydantic then validates
    # a Backbone nested in a graph or a plan without calling it, and errors keep their full path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def _argument(problem: Problem) -> Problem:
    """A problem of a graph file's entry, rephrased for Python."""
    hint = problem.hint if "`latentmas schema`" not in problem.hint else "see help(lm.Backbone)"
    message = problem.message.replace("unknown key", "unknown argument")
    message = message.replace("required key", "required argument")
    hint = hint.replace("known keys:", "it takes")
    return Problem(problem.code, f"Backbone.{problem.path}", message, hint)
