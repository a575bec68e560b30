"""`CostReport`: measured costs of a team and its text twin, as data and as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from latentmas.errors import LatentMASError
from latentmas.studies.parameters import ParameterCounts
from latentmas.studies.tabulate import Sheet

__all__ = ["CostReport", "MeasuredCost"]

FORMAT = 1
MIB = 2**20
HEAD = (
    *("rounds", "system", "seconds", "CPU seconds", "tokens", "latent steps", "prompt"),
    *("MiB", "joules", "price of 1000", "estimated seconds", "estimated MiB"),
)


@dataclass(frozen=True)
class MeasuredCost:
    """What one system took at one number of rounds; amounts are per question."""

    system: Literal["team", "twin"]
    """The team, or its text twin."""
    rounds: int
    """Number of rounds."""
    seconds: float
    """Wall time: the median over the runs."""
    fastest: float
    """Wall time of the fastest run."""
    slowest: float
    """Wall time of the slowest run."""
    cpu_seconds: float
    """Processor time: the median over the runs."""
    new_tokens: float
    """Generated tokens, over all agents."""
    latent_steps: float
    """Latent steps, over all agents."""
    prompt_tokens: float
    """Prompt positions, over all agents, including the rows of messages."""
    memory: int | None
    """Largest peak of memory above what was held before a run, in bytes, for all questions that run
    together."""
    joules: float | None
    """Energy: the median over the runs; None if no counter can be read."""
    price: float | None
    """Price of the seconds; None if a device has no price."""
    estimated_seconds: float | None
    """Lower bound in seconds from `System.explain`, at the number of tokens that was measured."""
    estimated_memory: int | None
    """Estimate of `memory` from `System.explain`."""


@dataclass(frozen=True)
class CostReport:
    """Measured costs of a team and its text twin. Printing it shows a table."""

    name: str
    """Name of the graph."""
    questions: int
    """Number of questions in each run."""
    repeats: int
    """Number of measured runs of each system and number of rounds."""
    batch_size: int
    """Maximum number of questions that ran together."""
    devices: tuple[str, ...]
    """Names of the devices that the models are on."""
    rows: tuple[MeasuredCost, ...]
    """Costs by number of rounds, the team before its twin."""
    parameters: ParameterCounts
    """Number of parameters."""
    currency: str
    """Currency of the prices."""
    notes: tuple[str, ...] = ()
    """What was not measured and why, where prices come from, and what an estimate is for."""
    versions: dict[str, Any] = field(default_factory=dict, repr=False)
    """Versions of the packages."""
    hardware: dict[str, Any] = field(default_factory=dict, repr=False)
    """The machine."""

    def row(self, rounds: int, system: str = "team") -> MeasuredCost:
        """The cost of a system at a number of rounds.

        Raises:
            LatentMASError: it was not measured.
        """
        for row in self.rows:
            if (row.rounds, row.system) == (rounds, system):
                return row
        there = ", ".join(f"{row.system} at {row.rounds}" for row in self.rows)
        raise LatentMASError(f"{system} at {rounds} rounds was not measured; there are: {there}")

    def ratios(self, rounds: int) -> dict[str, float | None]:
        """What the twin takes over what the team takes: above 1, the team is cheaper.

        None where the team takes nothing, or one of the two was not measured.
        """
        team, twin = self.row(rounds), self.row(rounds, "twin")
        names = ("seconds", "cpu_seconds", "new_tokens", "prompt_tokens", "memory", "joules")
        return {name: _ratio(getattr(twin, name), getattr(team, name)) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        depths = dict.fromkeys(row.rounds for row in self.rows)
        ratios = {str(rounds): self.ratios(rounds) for rounds in depths}
        counts = self.parameters.to_dict()
        return {"format": FORMAT, **asdict(self), "parameters": counts, "twin_over_team": ratios}

    def __str__(self) -> str:
        return _sheet(self).plain()

    def write(self, path: str | Path) -> Path:
        """Write the table in the format of the file's suffix: .md, .tex, .txt or .json.

        Raises:
            DataError: the suffix is none of these, or the file cannot be written.
        """
        return _sheet(self).write(path, self.to_dict())


def _sheet(report: CostReport) -> Sheet:
    """The table: two systems and their ratio for each number of rounds."""
    depths = dict.fromkeys(row.rounds for row in report.rows)
    rows = [line for depth in depths for line in _lines(report, depth)]
    head = tuple(f"{name} ({report.currency})" if "price" in name else name for name in HEAD)
    about = (
        f"Per question, medians of {report.repeats} runs of {report.questions} questions on "
        f"{', '.join(report.devices)}; MiB: peak above what was held before, of up to "
        f"{report.batch_size} questions together."
    )
    counts = f"{report.parameters}."
    return Sheet(head, rows, (about, counts, *report.notes), words=2).without_empty()


def _lines(report: CostReport, rounds: int) -> Iterator[tuple[str, ...]]:
    for name in ("team", "twin"):
        row = report.row(rounds, name)
        price = None if row.price is None else 1000 * row.price
        yield (
            str(rounds),
            name,
            *map(_number, (row.seconds, row.cpu_seconds)),
            *map(_count, (row.new_tokens, row.latent_steps, row.prompt_tokens)),
            _mib(row.memory),
            *map(_number, (row.joules, price, row.estimated_seconds)),
            _mib(row.estimated_memory),
        )
    ratios = report.ratios(rounds)
    names = ("seconds", "cpu_seconds", "new_tokens", "", "prompt_tokens", "memory", "joules")
    cells = ["–" if (x := ratios.get(name)) is None else f"{x:.2f}x" for name in names]
    yield (str(rounds), "twin / team", *cells, "–", "–", "–")


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _count(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")


def _mib(value: int | None) -> str:
    return "–" if value is None else f"{value / MIB:,.1f}"
