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
from latentmas.spec._base import Frozen, canonical_json, iter_invalid_values
from latentmas.spec._keys import correct_keys, value_problems
from latentmas.spec.quantization import Quantization, as_quantization

__all__ = ["GIVEN", "Backbone", "DType", "full_dtype"]

GIVEN = "given:"
"""Prefix of the source of a model that is handed over as an object."""
LONGEST_TEMPLATE = 2**18
_ALWAYS = frozenset({"source", "revision", "dtype", "family", "trust_remote_code", "attention"})
"""Fields that are always written. Later ones are written if set, so that digests of plans and
files that do not use them stay as they are."""

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
    file inside an installed Python package; `given:NAME` for a model that is handed over as an
    object, by `compile(models={NAME: (model, tokenizer)})`."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    subfolder: str | None = Field(default=None, max_length=1000)
    """Folder of the model inside the repository or folder."""
    dtype: DType = "auto"
    """Data type of the weights; `auto` takes the checkpoint's own. Short names such as `"bf16"` and
    `"half"`, and torch's types, are accepted and stored by their full names."""
    quantization: Quantization | None = None
    """Quantization of the weights while they are loaded (needs the extra `quantization`): a kind
    such as `"torchao:int8_weight_only"` or `"bitsandbytes:nf4"`, or a mapping of a kind and its
    options. A checkpoint that is already quantised is loaded by its own configuration."""
    tokenizer: str | None = None
    """Hub id or folder of the tokenizer. None: the model's own."""
    chat_template: str | None = Field(default=None, min_length=1, max_length=LONGEST_TEMPLATE)
    """Text of the chat template (Jinja) that replaces the tokenizer's; `lm.prompt_file(path)` reads
    it from a file, and in a graph file, `chat_template_file` names one."""
    family: str | None = None
    """Backbone family: a name in the registry. None: selected by `model_type`."""
    trust_remote_code: bool = False
    """Run Python code from the model's repository. Leave it off unless you have read that code."""
    attention: str | None = Field(default=None)
    """Attention implementation of transformers, such as `"sdpa"`. None: its default."""
    load: dict[str, Any] = Field(default_factory=dict, max_length=100)
    """Further arguments of `from_pretrained`, as plain values: `variant`, `use_safetensors` and the
    like, or fields of the model's configuration, such as `rope_scaling`."""
    adapter: str | None = None
    """LoRA adapter on top of the model: a folder that PEFT wrote, or a hub id. Backbones that are
    equal but for their adapters share one loaded model. Needs the extra `peft`."""
    adapter_revision: str | None = None
    """Branch, tag or commit of the adapter on the hub."""

    @field_validator("dtype", mode="before")
    @classmethod
    def _full_name(cls, value: Any) -> Any:
        return full_dtype(value)

    @field_validator("quantization", mode="before")
    @classmethod
    def _kind_alone(cls, value: Any) -> Any:
        return as_quantization(value)

    @field_validator(
        "source", "revision", "subfolder", "tokenizer", "load", "adapter", "adapter_revision"
    )
    @classmethod
    def _no_secret(cls, value: Any) -> Any:
        if value is not None and _has_secret(value):
            raise ValueError(
                "holds a secret, which would be saved with the team; give the plain id or folder: "
                "the hub's client reads the token from HF_TOKEN"
            )
        return value

    @field_validator("chat_template")
    @classmethod
    def _template_text(cls, value: str | None) -> str | None:
        if value is not None and redact(value) != value:
            raise ValueError("holds a secret, which would be saved with the team; remove it")
        if value is not None and "{" not in value:
            raise ValueError(
                f"takes the text of a template, and {value!r:.60} has no placeholder; for a file, "
                "give lm.prompt_file(path), or chat_template_file in a graph file"
            )
        return value

    @field_validator("load", mode="before")
    @classmethod
    def _plain_values(cls, value: Any) -> Any:
        odd = " ".join(next(iter_invalid_values(value, "load"), ()))
        try:
            canonical_json(value)
        except (TypeError, ValueError) as error:
            odd = odd or str(error)
        if odd:
            raise ValueError(f"{odd}; give plain values: text, numbers, lists, mappings")
        return value

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = write(self)
        return {name: value for name, value in data.items() if name in _ALWAYS or value}

    @property
    def given(self) -> str | None:
        """NAME of the source `given:NAME`; None for a backbone that is read from files."""
        return self.source.removeprefix(GIVEN) if self.source.startswith(GIVEN) else None

    def __hash__(self) -> int:
        return hash(self.fingerprint)

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


def _has_secret(value: Any) -> bool:
    """Whether a text, or a text inside lists and mappings, holds a secret."""
    if isinstance(value, dict):
        return any(_has_secret(item) for pair in value.items() for item in pair)
    if isinstance(value, list):
        return any(map(_has_secret, value))
    return isinstance(value, str) and redact(value) != value


def _argument(problem: Problem) -> Problem:
    """A problem of a graph file's entry, rephrased for Python."""
    hint = problem.hint if "`latentmas schema`" not in problem.hint else "see help(lm.Backbone)"
    message = problem.message.replace("unknown key", "unknown argument")
    message = message.replace("required key", "required argument")
    hint = hint.replace("known keys:", "it takes")
    return Problem(problem.code, f"Backbone.{problem.path}", message, hint)
