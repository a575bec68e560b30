"""`RunOptions`: all options of a run as plain data, in one model.

`System.run`, `evaluate`, `rerun`, the manifest of a run and the command line all read their options
from it. A new option is one field here and one line where it takes effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from latentmas.errors import unexpected_keyword
from latentmas.plan._option_errors import Conflict, ConflictError, Spell, in_python, option_error
from latentmas.spec import Frozen

__all__ = ["OnError", "PositionMode", "RunOptions"]

OnError = Literal["raise", "keep"]
PositionMode = Literal["mask", "column"]
Positive = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
_SAMPLING = ("temperature", "top_p", "top_k", "min_p")
"""Options without effect unless `do_sample` is set."""


class RunOptions(Frozen):
    """Options of a run: frozen, checked together, and plain JSON.

    `System.run` and `evaluate` take them as keywords, or as `options=RunOptions(…)`.

    Example:
        >>> RunOptions(do_sample=True, temperature=0.6).replace(seed=7).seed
        7
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False, use_attribute_docstrings=True)

    rounds: int | None = Field(default=None, json_schema_extra={"minimum": 1})
    """Number of rounds. Default: the graph's."""
    latent_steps: int | None = Field(default=None, json_schema_extra={"minimum": 0})
    """Number of latent steps of every agent. Default: the graph's."""
    max_new_tokens: Positive | dict[str, Positive] | None = Field(
        default=None,
        json_schema_extra={
            "minimum": 1,
            "allowed": "a whole number of at least 1, limits by agent, or None",
        },
    )
    """Maximum number of new tokens for every agent that writes; in Python also a mapping by agent.
    Default: the agents' own limits, else 256."""
    do_sample: bool = False
    """Sample tokens instead of taking the most likely one."""
    temperature: float = Field(
        default=1.0, gt=0, json_schema_extra={"hint": "for the most likely token, leave it out"}
    )
    """Sampling temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Total probability of the tokens to sample from, most likely first (top-p)."""
    top_k: int | None = Field(default=None, ge=1)
    """Number of most likely tokens to sample from (top-k)."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Minimum probability relative to the most likely token (min-p)."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Repetition penalty; values above 1 discourage repeats."""
    stop: tuple[Text, ...] = Field(
        default=(), json_schema_extra={"allowed": "a string, or a sequence of strings"}
    )
    """String that ends an answer and is not part of it."""
    seed: int | tuple[int, ...] = Field(
        default=0,
        json_schema_extra={"allowed": "a whole number, or a sequence with one for each sample"},
    )
    """Random seed for sampling; in Python also a sequence with one for each sample."""
    num_return_sequences: int = Field(default=1, ge=1)
    """Number of answers for each sample, all from one latent phase."""
    retry: Literal["math", "choice", "code", "search"] | None = None
    """Kind of task whose cue continues, once, an answer without a result."""
    record: tuple[Literal["messages", "states", "report"], ...] = Field(
        default=(), json_schema_extra={"allowed": "a string, or a sequence of strings"}
    )
    """Tensors to keep: messages, states, or report (what `RunResult.report` shows)."""
    position_mode: PositionMode = "mask"
    """Position counting: mask skips padding; column counts it, as the published rollout does."""
    executor: str | None = Field(default=None, json_schema_extra={"allowed": "a name, or None"})
    """Executor: auto, cached, cuda_graph, openvino, offload, static or reference (slow). Default:
    the system's."""
    batch_size: int = Field(default=32, ge=1)
    """Number of rows that run together."""
    refill_threshold: float | None = Field(default=None, gt=0, le=1)
    """Share of a batch that must finish before waiting rows join it; 1 waits for the whole batch.
    Default: 0.5 on CUDA, else 1."""
    on_error: OnError = "raise"
    """Action for a row that cannot be run: stop (raise), or keep the other rows and report it
    (keep)."""

    def __init__(self, **options: Any) -> None:
        """Check all options at once.

        Raises:
            TypeError: An option does not exist; the message names the closest one.
            UnknownNameError: The value of an option is not one of its allowed names.
            LatentMASError: An option has the wrong type, is out of range, or would have no effect
                with the others; the message names every such option.
        """
        for name in options:
            if name not in type(self).model_fields:
                raise unexpected_keyword("RunOptions", name, type(self).model_fields)
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise option_error(type(self), error, options, in_python) from None

    # Tells pydantic that this `__init__` adds no validation of its own. Records that contain
    # options, such as manifests, are then validated without it, and errors keep their full path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def read(cls, options: Mapping[str, Any], spell: Spell) -> Self:
        """Options from another source, whose names are spelt differently in messages.

        Args:
            options: Options by name.
            spell: Function that spells an option, with or without a value, as the user writes it.

        Raises:
            LatentMASError: Same as for the constructor.
        """
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            raise option_error(cls, error, options, spell) from None

    def replace(self, **changes: Any) -> Self:
        """A copy with some options changed, checked again."""
        return type(self)(**{**dict(self), **changes})

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        """Convert numpy numbers to Python's, mappings to dict and sequences to tuple."""
        return _plain_value(value)

    @field_validator("stop", "record", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
        return (value,) if isinstance(value, str) else tuple(value) if several else value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        conflicts = [*self._ignored(), *self._equal_answers()]
        if conflicts:
            raise ConflictError(conflicts)
        return self

    def _ignored(self) -> list[Conflict]:
        fields = type(self).model_fields
        names = [n for n in _SAMPLING if getattr(self, n) != fields[n].default]
        if self.do_sample or not names:
            return []
        return [
            lambda spell: (
                f"{', '.join(map(spell, names))} would have no effect, since the most likely token "
                f"is taken; add {spell('do_sample', True)}, or leave {spell(names[0])} out"
            )
        ]

    def _equal_answers(self) -> list[Conflict]:
        count = self.num_return_sequences
        if self.do_sample or count == 1:
            return []
        return [
            lambda spell: (
                f"{spell('num_return_sequences', count)} would give {count} equal answers, since "
                f"the most likely token is taken; add {spell('do_sample', True)}"
            )
        ]


def _plain_value(value: Any) -> Any:
    if isinstance(value, bool | str | bytes):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Mapping):
        return {key: _plain_value(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return tuple(map(_plain_value, value))
    return value
