"""`Explanation`: what a run will take, step by step, as data and as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from textwrap import TextWrapper
from typing import Any, Literal

from latentmas.cost.hardware import GIB, Hardware

__all__ = ["Explanation", "StepCost"]


@dataclass(frozen=True)
class StepCost:
    """One step of a plan, or several rollouts that run as one batch.

    Costs are None where the backbone's counts or the prompt's length are not known.
    """

    index: int
    """Index of the (first) step in the plan."""
    op: Literal["rollout", "transfer", "decode"]
    round: int
    agents: tuple[str, ...]
    """Agents that run; for a transfer, sender and receiver."""
    rows: int
    """Number of rows of the batch: samples times agents."""
    positions: int | None = None
    """Number of positions of the longest prompt."""
    reused: int | None = None
    """Number of these positions that are reused from an earlier turn of the agent."""
    reread: int | None = None
    """Number of these positions whose text an earlier turn has read and that are reread."""
    latent_steps: int = 0
    new_tokens: int = 0
    reads: tuple[tuple[int, int], ...] = ()
    """New and past positions of each call that reads the prompt."""
    calls: int = 0
    """Calls of one position after them."""
    link_rows: dict[str, int] = field(default_factory=dict)
    """Rows that go through each link, by id."""
    flops: float | None = None
    weight_bytes: float | None = None
    state_bytes: float | None = None
    """Keys, values and recurrent states, read and written."""
    memory: int | None = None
    """Peak memory of the step in bytes, including all backbones and links."""
    prompt_seconds: float | None = None
    """Cost of reading the prompt."""
    call_seconds: float | None = None
    """Average cost of one latent step or token after the prompt."""
    seconds: float | None = None
    reference_flops: float | None = None
    """Cost in the loop that rereads the prompt at each latent step; None except for rollouts."""
    reference_seconds: float | None = None

    @property
    def bytes(self) -> float | None:
        """All bytes moved."""
        if self.weight_bytes is None or self.state_bytes is None:
            return None
        return self.weight_bytes + self.state_bytes


@dataclass(frozen=True)
class Explanation:
    """The cost of a plan: a roofline's lower bound in seconds, operations, bytes and memory.

    Printing it shows a table, totals and obstacles to reuse. Sums are None if a step's cost is
    unknown; `unknown` gives the reason.
    """

    name: str
    """Name of the graph."""
    hardware: Hardware
    """Hardware that the estimate is for."""
    batch: int
    """Number of samples that run together."""
    executor: str
    """Executor whose memory is estimated."""
    basis: str
    """Source of the prompt lengths."""
    weights: int | None
    """Bytes of all backbones; None if a count is unknown."""
    links: int
    """Bytes of all links."""
    rows: tuple[StepCost, ...]
    """Costs of each step, in the order of execution."""
    unknown: tuple[str, ...] = ()
    """Unknown costs, one line each."""
    obstacles: tuple[str, ...] = ()
    """Prompts whose order prevents reuse of their beginning, one line each."""
    notes: tuple[str, ...] = ()
    """Assumptions, one line each."""

    @property
    def seconds(self) -> float | None:
        """Lower bound of the time of the whole run, in seconds."""
        return _sum(row.seconds for row in self.rows)

    @property
    def latent_seconds(self) -> float | None:
        """Lower bound of the time of all rollouts and transfers, in seconds."""
        return _sum(row.seconds for row in self.rows if row.op != "decode")

    @property
    def flops(self) -> float | None:
        """Operations of the whole run."""
        return _sum(row.flops for row in self.rows)

    @property
    def bytes(self) -> float | None:
        """Bytes moved in the whole run."""
        return _sum(row.bytes for row in self.rows)

    @property
    def peak_memory(self) -> int | None:
        """Peak memory in bytes."""
        held = [row.memory for row in self.rows if row.op != "transfer"]
        return None if None in held else max((n for n in held if n is not None), default=0)

    @property
    def fits(self) -> bool | None:
        """Whether the hardware's memory is sufficient; None if either is unknown."""
        if self.peak_memory is None or self.hardware.memory is None:
            return None
        return self.peak_memory <= self.hardware.memory

    @property
    def reference_ratio(self) -> float | None:
        """Time of the rollouts in a loop that rereads the prompt at each latent step, over ours.

        The published code runs that loop. None without rollouts, or if a cost is unknown.
        """
        return _ratio(self.rows, "reference_seconds", "seconds")

    @property
    def reference_flops_ratio(self) -> float | None:
        """Same as `reference_ratio`, for operations."""
        return _ratio(self.rows, "reference_flops", "flops")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: totals, rows and remarks."""
        peaks = self.hardware.flops
        totals = ("seconds", "latent_seconds", "flops", "bytes", "peak_memory", "fits")
        ratios = ("reference_ratio", "reference_flops_ratio")
        return {
            "name": self.name,
            "hardware": {
                **{f.name: getattr(self.hardware, f.name) for f in fields(self.hardware)},
                "flops": peaks if isinstance(peaks, float | int) else dict(peaks),
            },
            "batch": self.batch,
            "executor": self.executor,
            "basis": self.basis,
            "weights": self.weights,
            "links": self.links,
            **{name: getattr(self, name) for name in (*totals, *ratios)},
            "unknown": list(self.unknown),
            "obstacles": list(self.obstacles),
            "notes": list(self.notes),
            "rows": [asdict(row) | {"bytes": row.bytes} for row in self.rows],
        }

    def __str__(self) -> str:
        head = (
            f"{self.name} on {self.hardware.name}, batch {self.batch}, executor {self.executor}: "
            f"a lower bound, not a forecast\n{self.basis}"
        )
        parts = [head, f"{_table(self.rows)}\n{LEGEND}", "\n".join(self._totals())]
        remarks = {"Not known": self.unknown, "Reuse": self.obstacles, "Notes": self.notes}
        for title, lines in remarks.items():
            if lines:
                parts.append("\n".join([title, *_wrapped(lines)]))
        return "\n\n".join(parts)

    def _totals(self) -> Iterator[str]:
        peak, memory = self.peak_memory, self.hardware.memory
        latent, whole = self.latent_seconds, self.seconds
        writing = None if latent is None or whole is None else whole - latent
        yield (
            f"  time        {_seconds(whole)}: latent phase {_seconds(latent)}, "
            f"writing {_seconds(writing)}"
        )
        yield f"  operations  {_scaled(self.flops)}FLOP, {_scaled(self.bytes)}B moved"
        room = "" if memory is None else f"; {self.hardware.name} has {_gib(memory)}"
        short = " and is not sufficient" if self.fits is False else ""
        yield (
            f"  memory      {_gib(peak)} at most, {_gib(self.weights)} of it backbones, "
            f"{_gib(self.links)} links{room}{short}"
        )
        if self.reference_ratio is not None:
            yield (
                f"  reference   reading the prompt at each latent step takes the rollouts "
                f"{self.reference_ratio:.1f}x as long ({self.reference_flops_ratio:.1f}x the FLOP)"
            )


def _sum(values: Iterable[float | None]) -> float | None:
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _ratio(rows: Sequence[StepCost], over: str, under: str) -> float | None:
    """Ratio of two columns over all rollouts."""
    rollouts = [row for row in rows if row.op == "rollout"]
    above, below = (_sum(getattr(row, name) for row in rollouts) for name in (over, under))
    return above / below if above is not None and below else None


COLUMNS = ("round", "step", "who", "rows", "prompt", "reused", "again", "K", "tokens")
MEASURES = ("FLOP", "moved", "held", "seconds")
LEGEND = "  prompt: positions; reused: those kept from an earlier turn; again: text that is reread"
WIDTH = 100


def _wrapped(lines: Iterable[str]) -> list[str]:
    wrap = TextWrapper(WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False)
    return [part for line in lines for part in wrap.wrap(line)]


def _table(rows: Sequence[StepCost]) -> str:
    """Steps with equal costs, merged into one line with all their rounds."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        alike.setdefault(_cells(row), []).append(row.round)
    lines: list[tuple[str, ...]] = [(*COLUMNS, *MEASURES)]
    lines += [(_rounds(rounds), *cells) for cells, rounds in alike.items()]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    left = 3  # columns of words
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: StepCost) -> tuple[str, ...]:
    turn = row.op != "transfer"
    who = (", " if turn else " -> ").join(row.agents)
    reading = (row.positions, row.reused, row.reread)
    return (
        row.op,
        who,
        str(row.rows),
        *(("?" if n is None else str(n)) if turn else "" for n in reading),
        str(row.latent_steps) if row.op == "rollout" else "",
        str(row.new_tokens) if row.op == "decode" else "",
        _scaled(row.flops),
        f"{_scaled(row.bytes)}B",
        _gib(row.memory) if turn else "",
        _seconds(row.seconds),
    )


def _rounds(rounds: Sequence[int]) -> str:
    """`1`, `2-3`, `1, 3`."""
    runs: list[list[int]] = []
    for number in sorted(set(rounds)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]}" if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def _scaled(number: float | None) -> str:
    """A number with three digits and an SI prefix."""
    if number is None:
        return "? "
    for prefix in ("", "k", "M", "G", "T"):
        if number < 999.5:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:.3g} P"


def _seconds(number: float | None) -> str:
    if number is None:
        return "?"
    for unit, least in (("s", 1.0), ("ms", 1e-3)):
        if number >= least:
            return f"{number / least:.3g} {unit}"
    return f"{number / 1e-6:.3g} us"


def _gib(number: float | None) -> str:
    if number is None:
        return "?"
    return f"{number / GIB:.2f} GiB" if number >= 0.01 * GIB else f"{number / 2**20:.2f} MiB"
