"""Benchmarks by name: a data set, how its rows become samples, and how answers are graded.

A benchmark is a file in this package, an entry point in the group
`latentmas.evaluation.benchmarks`, or a `Benchmark` registered with `benchmarks.register`. Data sets
are read from the Hugging Face Hub at a pinned revision, or from a local file of the same form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from latentmas.registry import Registry

__all__ = ["Benchmark", "benchmarks"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """A data set with its split, its prompt fields and its grader."""

    name: str
    """Registered name."""
    title: str
    """Name in full."""
    source: str
    """Data set on the Hugging Face Hub."""
    split: str
    """Split of the data set."""
    read: Callable[[Row], dict[str, Any]]
    """Turns a row into a sample: `question`, `answer`, and what the grader needs. An `id` of the
    data set's own is kept. A row that it cannot read is a ValueError that says why."""
    grader: str
    """Registered name of the grader."""
    licence: str
    """Licence of the data."""
    citation: str
    """Authors, year and arXiv number or venue."""
    rows: int | None = None
    """Number of rows in the split."""
    revision: str = ""
    """Commit of the data set; empty if it is not pinned."""
    config: str | None = None
    """Configuration (subset) of the data set."""
    gated: bool = False
    """Whether the owners of the data set grant access on request."""
    columns: tuple[str | tuple[str, ...], ...] = ()
    """Columns that `read` reads; a tuple lists names any of which will do."""
    grader_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the grader."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `System.run` for published results, such as `max_new_tokens`."""
    instruction: str = ""
    """Sentence that says in which form the answer is expected; it is added to the question."""
    examples: tuple[Mapping[str, str], ...] = ()
    """Solved questions (`question`, `answer`) for few-shot prompts, none of them in the split."""
    notes: str = ""
    """What is known about its correct answers, and where its examples and settings come from."""

    def __post_init__(self) -> None:
        # The registry asks where an entry was defined; a benchmark is at home where its reader is.
        object.__setattr__(self, "__module__", self.read.__module__)
        object.__setattr__(self, "__qualname__", self.name)

    def missing(self, row: Row) -> list[str]:
        """Columns that a row lacks; alternatives are joined by "or"."""
        wanted = [(one,) if isinstance(one, str) else one for one in self.columns]
        return [" or ".join(names) for names in wanted if not any(name in row for name in names)]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: all fields but `read`, and the number of examples."""
        plain = ("name", "title", "source", "config", "split", "rows", "revision", "gated")
        more = ("grader", "licence", "citation", "instruction", "notes")
        facts = {name: getattr(self, name) for name in (*plain, *more)}
        facts |= {"options": dict(self.options), "grader_options": dict(self.grader_options)}
        columns = [one if isinstance(one, str) else list(one) for one in self.columns]
        return facts | {"columns": columns, "examples": len(self.examples)}


benchmarks: Registry[Benchmark] = Registry("benchmark", "latentmas.evaluation.benchmarks")
"""Every benchmark by name."""
