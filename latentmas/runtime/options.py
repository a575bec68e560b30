"""Arguments of `System.run`: plain options, objects and functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from latentmas.arguments import refuse
from latentmas.engine import Executor
from latentmas.errors import LatentMASError, unexpected_keyword
from latentmas.generation import RETRIES, Retry, Sampling
from latentmas.plan import Rollout, RunOptions, Transfer

if TYPE_CHECKING:
    from latentmas.runtime.interpreter import EditMessage
    from latentmas.runtime.observing.events import Watcher

__all__ = [
    "HOOKS",
    "RECORDABLE",
    "RunRequest",
    "check_seeds",
    "find_retry",
    "merge_options",
    "read_watchers",
    "takes_options",
]

F = TypeVar("F", bound=Callable[..., Any])

HOOKS = ("on_event", "on_text", "edit_message", "manifest")
"""Arguments of `System.run` that are not options: functions and files, which cannot be recorded."""
RECORDABLE: dict[str, tuple[type, ...]] = {
    "messages": (Transfer,),
    "states": (Rollout,),
    "report": (Transfer, Rollout),
}
"""Values of `record`, with the steps whose results are recorded."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Checked arguments of a run: options without open defaults, objects and functions."""

    options: RunOptions
    """Options, with the values chosen for `executor` and `refill_threshold`."""
    executor: Executor
    retry: Retry | None = None
    watchers: tuple[Watcher, ...] = ()
    edit_message: EditMessage | None = None
    objects: Mapping[str, object]
    """Arguments that are objects or functions, by name; a run with one cannot be repeated."""

    @property
    def sampling(self) -> Sampling:
        """Sampling settings."""
        return Sampling.of(self.options)


OBJECTS: dict[str, type] = {"executor": Executor, "retry": Retry}
"""Options that accept an object instead of a name, with its type."""


def merge_options(
    call: str, options: RunOptions | None, given: Mapping[str, Any]
) -> tuple[RunOptions, dict[str, Any]]:
    """Merge options with keywords, which replace them.

    Args:
        call: Name of the called function, for messages.
        options: Options as one object; None uses the defaults.
        given: Keywords; `retry` and `executor` may be objects.

    Returns:
        The merged options, and the objects by name.

    Raises:
        TypeError: A keyword is unknown, or `options` is not a `RunOptions`.
        LatentMASError: Same as for the constructor of `RunOptions`.
    """
    known = [*RunOptions.model_fields, *HOOKS, "options"]
    for name in given:
        if name not in RunOptions.model_fields:
            raise unexpected_keyword(call, name, known)
    if not isinstance(options, RunOptions | None):
        found = type(options).__name__
        raise TypeError(f"{call}: options is a {found}; give lm.RunOptions(…), or keywords")
    objects = {n: value for n, value in given.items() if isinstance(value, OBJECTS.get(n, ()))}
    plain = {name: value for name, value in given.items() if name not in objects}
    plain |= dict.fromkeys(objects)
    return (options or RunOptions()).replace(**plain), objects


def find_retry(options: RunOptions, objects: Mapping[str, Any]) -> Retry | None:
    """The retry of a run: the given object, or the one for a kind of task."""
    if "retry" in objects:
        return objects["retry"]  # type: ignore[no-any-return]
    return None if options.retry is None else RETRIES[options.retry]


def read_watchers(on_event: Watcher | Sequence[Watcher]) -> tuple[Watcher, ...]:
    """Functions to call with each event.

    Raises:
        LatentMASError: `on_event` is neither a function nor a sequence of functions.
    """
    if callable(on_event):
        return (on_event,)
    if not isinstance(on_event, list | tuple) or not all(map(callable, on_event)):
        raise refuse(
            "on_event", on_event, "give a function that takes an event, or a list of such functions"
        )
    return tuple(on_event)


def check_seeds(options: RunOptions, samples: int) -> None:
    """Check that there is one seed per sample if seeds are given by sample.

    Raises:
        LatentMASError: The numbers differ.
    """
    if isinstance(options.seed, tuple) and len(options.seed) != samples:
        found = len(options.seed)
        raise LatentMASError(f"{found} seeds for {samples} samples; give one seed, or one for each")


def takes_options(function: F) -> F:
    """Decorator that lists the options behind `**options` in the signature and the docstring."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    fields = RunOptions.model_fields
    more = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation
        )
        for name, field in fields.items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    told = "".join(
        f"\n            {name}: {' '.join(str(field.description).split())}"
        for name, field in fields.items()
    )
    marker = "options, each a field of `RunOptions`."
    function.__doc__ = (function.__doc__ or "").replace(marker, f"{marker}{told}")
    return function
