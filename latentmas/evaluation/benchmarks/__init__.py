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
    title: str
    """Name in full."""
    source: str
    """Data set on the Hugging Face Hub."""
    split: str
    read: Callable[[Row], dict[str, Any]]
    """Turns a row into a sample: `question`, `answer`, and what the grader needs."""
    grader: str
    """Registered name of the grader."""
    licence: str
    citation: str
    """Authors, year and arXiv number or venue."""
    revision: str = ""
    """Commit of the data set."""
    config: str | None = None
    """Configuration (subset) of the data set."""
    columns: tuple[str, ...] = ()
    """Columns that `read` reads, for an error when a file has others."""
    grader_options: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `System.run` for published results, such as `max_new_tokens`."""
    instruction: str = ""
    """Sentence that says in which form the answer is expected; it is added to the question."""
    examples: tuple[Mapping[str, str], ...] = ()
    """Solved questions for few-shot prompts, none of them in the split."""
    notes: str = ""
    """What is known about its correct answers, and how access is granted."""

    def __post_init__(self) -> None:
        # The registry asks each entry where it was defined, which for an object is not its class.
        object.__setattr__(self, "__module__", self.read.__module__)
        object.__setattr__(self, "__qualname__", self.name)


benchmarks: Registry[Benchmark] = Registry("benchmark", "latentmas.evaluation.benchmarks")
"""Every benchmark by name."""
