"""Everything that `latentmas` raises on purpose.

```
LatentMASError
├ GraphError(ValueError)        .problems: every problem of a graph, at once
├ PlanError(ValueError)         a plan is malformed or breaks an invariant
├ UnknownNameError(KeyError)    registry miss, with a suggestion
├ WeightsError(RuntimeError)    missing / unexpected / wrong shape / digest mismatch
├ DataError(ValueError)         a dataset row lacks a field, or a file cannot be read
└ ExecutionError(RuntimeError)  .step .agent .round, raised from the cause

TrainingInterrupted(KeyboardInterrupt)  Ctrl-C in a training: .step .checkpoint .resume
```
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import ParamSpec, TypeVar

from latentmas.redact import redact

__all__ = [
    "CODES",
    "DataError",
    "ExecutionError",
    "GraphError",
    "LatentMASError",
    "PlanError",
    "Problem",
    "TrainingInterrupted",
    "UnknownNameError",
    "WeightsError",
    "closest",
    "missing_attribute",
    "more_about",
    "spelled",
    "unexpected_keyword",
]

P = ParamSpec("P")
R = TypeVar("R")

CODES: dict[str, str] = {
    "LM100": "the graph file or declaration is malformed",
    "LM101": "unknown backbone",
    "LM102": "two things have the same name",
    "LM103": "a prompt slot has nothing to fill it",
    "LM104": "a slot is bound more than once",
    "LM105": "an edge is never used",
    "LM106": "an edge without a slot name matches no slot, or several",
    "LM107": "an edge names an agent or source that does not exist",
    "LM108": "a reserved or malformed name",
    "LM110": "forward edges form a cycle",
    "LM111": "no output agent, or several",
    "LM112": "an agent cannot reach the output agent",
    "LM113": "rounds or latent steps out of range",
    "LM114": "a feedback edge in a graph of one round",
    "LM115": "an input or text source is never used",
    "LM116": "the graph has no agents",
    "LM117": "part of the graph is disconnected",
    "LM118": "a tool's name is malformed, taken or given twice",
    "LM119": "unknown tool",
    "LM120": "a link kind cannot bridge two widths",
    "LM121": "unknown link kind, option or initialisation",
    "LM122": "links that share weights do not agree",
    "LM123": "a text source cannot feed back",
    "LM124": "a backbone lacks what a link kind needs",
    "LM201": "a backbone's configuration cannot be read",
    "LM202": "a backbone is not a decoder with a hidden size and a vocabulary",
    "LM203": "a backbone is declared but used by no agent",
    "LM204": "an option of a backbone cannot be used",
    "LM205": "a backbone's tokenizer or chat template cannot be used",
    "LM206": "a library that a backbone needs is not installed",
    "LM207": "a backbone is not handed over",
    "LM208": "a backbone's adapter cannot be used",
    "LM301": "a prompt is not a valid template",
    "LM302": "a prompt uses a feedback slot without a guard",
    "LM303": "a prompt changes a slot instead of placing it",
    "LM401": "a link has no differentiable path to the loss",
    "LM402": "there is nothing to train",
    "LM403": "a loss or gradient became non-finite in training",
    "LM501": "an artefact does not belong to this graph",
    "LM502": "an artefact cannot be read",
    "LM503": "weights in an artefact are missing, unexpected or damaged",
    "LM504": "a file requests code from a model's repository",
    "LM511": "the hub refused a download or an upload",
    "LM512": "a run cannot be recorded or repeated",
    "LM513": "text to be saved contains a secret",
}
"""Every code a [`Problem`][latentmas.Problem] may carry, with its meaning."""
_CODE = re.compile(r"^\s*(LM\d{3})\b", re.MULTILINE)


class LatentMASError(Exception):
    """Root of everything that this package raises on purpose. Messages hold no secrets.

    A message with codes carries a note that says where they are explained; tracebacks show it.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(arg) if isinstance(arg, str) else arg for arg in args))
        where = more_about(str(args[0]) if args else "")
        if where:
            self.add_note(where)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a graph, and how to fix it."""

    code: str
    """A key of `CODES`, such as `"LM110"`."""
    path: str
    """Where: `"agent planner"`, `"edge a -> b.slot"`, `"graph"`."""
    message: str
    """What is wrong, with what was found."""
    hint: str
    """The change that fixes it, in Python."""
    file_hint: str = field(default="", repr=False, compare=False)
    """The same change in a graph file, where it differs from `hint`."""
    location: str = ""
    """File and line, such as `"team.yaml:12"`; empty for a graph that was built in Python."""

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, redact(getattr(self, one.name)))

    def __str__(self) -> str:
        where = f" ({self.location})" if self.location else ""
        return f"{self.code} {self.path}: {self.message}{where}; fix: {self.hint}"

    def in_file(self, location: str) -> Problem:
        """The problem as the author of a graph file meets it: with its line, and a fix in YAML."""
        hint = self.file_hint or self.hint
        return replace(self, location=self.location or location, hint=hint, file_hint="")

    def to_dict(self) -> dict[str, str]:
        """The fields as plain strings, for JSON; `location` only for a graph from a file."""
        told = {
            "code": self.code,
            "path": self.path,
            "message": self.message,
            "hint": self.hint,
        }
        return told | ({"location": self.location} if self.location else {})


class GraphError(LatentMASError, ValueError):
    """A graph cannot be compiled; `.problems` lists every reason at once."""

    def __init__(
        self, problems: Iterable[Problem], graph: str = "", *, what: str = "the graph"
    ) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        """All problems of the graph."""
        self.graph = graph
        """Name of the graph."""
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in {what}"
        lines = [f"{head} {graph!r}" if graph else head]
        for problem in self.problems:
            lines.append(f"  {problem.code}  {problem.path}: {problem.message}")
            if problem.location:
                lines.append(f"         at {problem.location}")
            lines.append(f"         fix: {problem.hint}")
        super().__init__("\n".join(lines))


class PlanError(LatentMASError, ValueError):
    """A plan is malformed or breaks an invariant."""


class UnknownNameError(LatentMASError, KeyError):
    """A registry has no such name; the message suggests the closest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, fix: str = "") -> None:
        shown = name if isinstance(name, str) else repr(name)
        self.kind, self.name, self.known = kind, redact(shown), tuple(known)
        guess = closest(self.name, self.known)
        hint = f"did you mean {guess!r}? " if guess else ""
        listing = ", ".join(self.known) or "none"
        more = f"; {fix}" if fix else ""
        self.message = redact(f"unknown {kind} {self.name!r}; {hint}known: {listing}{more}")
        """The message, without quotation marks."""
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would print the repr
        return self.message


class WeightsError(LatentMASError, RuntimeError):
    """Weights are missing, unexpected, of a wrong shape or not finite."""


class DataError(LatentMASError, ValueError):
    """A dataset, a sample or a file does not hold what is needed."""


class ExecutionError(LatentMASError, RuntimeError):
    """A step of a plan failed; raised from the cause."""

    def __init__(self, message: str, *, step: int, agent: str, round: int) -> None:
        self.step, self.agent, self.round = step, agent, round
        super().__init__(f"round {round}, agent {agent!r} (step {step}): {message}")


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C stopped a training, after it had saved a checkpoint.

    `step`: steps that were done. `checkpoint`: the folder. `resume`: the call or command that
    continues from there.
    """

    def __init__(self, step: int, checkpoint: str, resume: str) -> None:
        super().__init__(
            f"interrupted after step {step}; the checkpoint is {checkpoint}; to continue:\n"
            f"  {resume}"
        )
        self.step, self.checkpoint, self.resume = step, checkpoint, resume


def more_about(message: str) -> str:
    """Where the codes of a message are explained; empty for a message without codes."""
    codes = sorted(set(_CODE.findall(message)) & CODES.keys())
    if not codes:
        return ""
    return f"more: latentmas errors {' '.join(codes)}"


_LONGEST, _MOST = 100, 500
"""Maximum length of a name and number of names compared: the time is quadratic in letters."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to `name`, or None if none is close; long names are not compared."""
    if len(name) > _LONGEST:
        return None
    short = [other for other in known if len(other) <= _LONGEST]
    matches = difflib.get_close_matches(name, short[:_MOST], n=1, cutoff=0.6)
    return matches[0] if matches else None


def unexpected_keyword(call: str, name: str, known: Iterable[str]) -> TypeError:
    """The error for a keyword argument that does not exist, with the closest one that does.

    Args:
        call: what was called, such as `"Graph.add_agent"`.
        name: the keyword.
        known: the keywords there are.
    """
    names = list(known)
    guess = closest(name, names)
    listing = ", ".join(names) if len(names) <= _SHOWN else "see its documentation"
    hint = f"did you mean {guess!r}?" if guess else f"known: {listing}"
    return TypeError(f"{call} takes no argument {name!r}; {hint}")


_SHOWN = 30
"""Maximum number of names in a message."""


def spelled(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: a misspelt keyword argument is a TypeError that names the closest argument."""
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY and p.name != "self"]
    call = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                raise unexpected_keyword(call, name, known)
        return function(*args, **kwargs)

    return checked


def missing_attribute(
    owner: object, name: str, elsewhere: Mapping[str, str], known: Iterable[str] = ()
) -> AttributeError:
    """The error for an attribute that an object lacks, with the call that the user looks for.

    Args:
        owner: the object.
        name: name of the attribute.
        elsewhere: attribute → what to write in its place.
        known: attributes there are, for a misspelt name.
    """
    kind = type(owner).__name__
    hint = elsewhere.get(name)
    if hint is None:
        guess = None if name.startswith("_") else closest(name, known)
        hint = f"did you mean {guess!r}?" if guess else ""
    message = f"{kind!r} object has no attribute {name!r}"
    return AttributeError(f"{message}; {hint}" if hint else message)
