"""What a team costs, measured: against its text twin, for each number of rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import torch

from latentmas.arguments import whole
from latentmas.atomic import check_writable
from latentmas.cost import HARDWARE, Explanation, Hardware
from latentmas.environment import hardware as this_machine
from latentmas.environment import versions
from latentmas.errors import DataError, LatentMASError
from latentmas.metering import Cost, CostMeter
from latentmas.plan import RunOptions, answer_limits
from latentmas.runtime import RunResult, System, check_system, merge_options
from latentmas.studies.cost_report import CostReport, MeasuredCost
from latentmas.studies.parameters import ParameterCounts, parameter_counts
from latentmas.studies.prices import PriceTable, named_in

__all__ = [
    "CostMeter",
    "CostReport",
    "MeasuredCost",
    "ParameterCounts",
    "measure_costs",
    "parameter_counts",
]

Row = Mapping[str, Any]
ESTIMATE = (
    "Estimates are lower bounds for {name}, at the number of tokens that was measured; their MiB "
    "leave out weights, as the measured ones do."
)


class _Runs(NamedTuple):
    """The measured runs of one system at one number of rounds."""

    system: System
    options: RunOptions
    costs: list[Cost]
    results: list[RunResult]


def measure_costs(
    system: System,
    rows: Sequence[str | Row],
    *,
    rounds: int | Sequence[int] | None = None,
    repeats: int = 3,
    twin_tokens: int | None = None,
    prices: str | Path | PriceTable | None = None,
    hardware: str | Hardware | None = None,
    output: str | Path | None = None,
    options: RunOptions | None = None,
    **given: Any,
) -> CostReport:
    """Measure what a team takes, against its text twin, for each number of rounds.

    After one run of each that is not measured, all take turns, so that what else happens on the
    machine affects all of them alike.

    Args:
        system: the team.
        rows: questions: strings, or mappings with the inputs of the graph. Answers are not needed.
        rounds: one or more numbers of rounds; None takes the graph's.
        repeats: number of measured runs of each.
        twin_tokens: maximum number of tokens that the agents of the text twin write per edge.
        prices: YAML file with prices per hour, or a table; None takes the table that ships with
            latentmas, which has no price for processors.
        hardware: machine for the estimates: a name, or your own; None takes the known machine that
            the device's name contains. No estimate is made without one.
        output: file to write the table to; see `CostReport.write`.
        options: options of `system.run`.
        **given: single options of `system.run`, which override `options`. With `twin_tokens`,
            `max_new_tokens` limits the answers alone.

    Raises:
        DataError: there are no rows, or the prices cannot be read.
        LatentMASError: a number is out of range.
        UnknownNameError: no hardware has that name.
    """
    check_system("system", system)
    if output is not None:
        check_writable(Path(output))
    if not rows:
        raise DataError("there are no rows to measure; give at least one question")
    asked, objects = merge_options("measure_costs", options, given)
    table = prices if isinstance(prices, PriceTable) else PriceTable.load(prices)
    found = _prepare(system, asked, _depths(system, rounds), twin_tokens)
    devices = _devices(system)
    machine = hardware if hardware is not None else named_in(devices[0], HARDWARE)
    first = next(iter(found.values()))
    _estimates(first, rows, machine)  # an unknown machine is refused now, not after the runs
    for repeat in range(1 + whole("repeats", repeats)):
        for (_, depth), runs in found.items():
            with CostMeter() as meter:
                result = runs.system.run(
                    rows, options=runs.options.replace(rounds=depth), **objects
                )
            if repeat:
                runs.costs.append(meter.cost)
                runs.results.append(result)
    report = CostReport(
        name=system.plan.graph.name,
        questions=len(rows),
        repeats=repeats,
        batch_size=asked.batch_size,
        devices=devices,
        rows=tuple(
            _measured(name, depth, runs, rows, _hourly(devices, table), machine)
            for (name, depth), runs in found.items()
        ),
        parameters=parameter_counts(system),
        currency=table.currency,
        notes=tuple(_notes(first, devices, table, machine)),
        versions=versions(),
        hardware=this_machine(),
    )
    if output is not None:
        report.write(output)
    return report


def _depths(system: System, rounds: int | Sequence[int] | None) -> list[int]:
    """Numbers of rounds, each once.

    Raises:
        LatentMASError: there are none, or one is not a whole number of at least 1.
    """
    if rounds is None:
        return [system.plan.graph.rounds]
    several = [rounds] if isinstance(rounds, int) else list(rounds)
    if not several:
        raise LatentMASError("rounds is empty; give one or more numbers of rounds")
    return list(dict.fromkeys(whole("rounds", number) for number in several))


def _prepare(
    system: System, asked: RunOptions, depths: Sequence[int], twin_tokens: int | None
) -> dict[tuple[str, int], _Runs]:
    """Team and twin at each depth, in the order of the table."""
    twin, limit = system.text_twin(max_new_tokens=twin_tokens), asked.max_new_tokens
    spoken = asked
    if twin_tokens is not None:
        spoken = asked.replace(max_new_tokens=answer_limits(system.plan, limit))
    return {
        (name, depth): _Runs(team, own, [], [])
        for depth in depths
        for name, team, own in (("team", system, asked), ("twin", twin, spoken))
    }


def _measured(
    name: Any,
    rounds: int,
    runs: _Runs,
    rows: Sequence[str | Row],
    hourly: float | None,
    machine: str | Hardware | None,
) -> MeasuredCost:
    """One line of the report."""
    count = len(rows)
    seconds = [cost.seconds / count for cost in runs.costs]
    middle = statistics.median(seconds)
    records = runs.results[-1].accounting
    joules = [cost.joules / count for cost in runs.costs if cost.joules is not None]
    peaks = [cost.peak_memory for cost in runs.costs if cost.peak_memory is not None]
    guesses = _estimates(runs, rows, machine, rounds)
    times = [guess.seconds for guess in guesses]
    memory = [_beside_weights(guess) for guess in guesses]
    return MeasuredCost(
        system=name,
        rounds=rounds,
        seconds=middle,
        fastest=min(seconds),
        slowest=max(seconds),
        cpu_seconds=statistics.median(cost.cpu_seconds / count for cost in runs.costs),
        new_tokens=sum(record.new_tokens for record in records) / count,
        latent_steps=sum(record.latent_steps for record in records) / count,
        prompt_tokens=sum(record.prompt_tokens for record in records) / count,
        memory=max(peaks, default=None),
        joules=statistics.median(joules) if joules else None,
        price=None if hourly is None else middle / 3600 * hourly,
        estimated_seconds=_total(times, count),
        estimated_memory=max((m for m in memory if m is not None), default=None),
    )


def _estimates(
    runs: _Runs,
    rows: Sequence[str | Row],
    machine: str | Hardware | None,
    rounds: int | None = None,
) -> list[Explanation]:
    """Estimates of the batches of a run, at the number of tokens that each agent wrote."""
    if machine is None:
        return []
    size, options = runs.options.batch_size, runs.options
    return [
        runs.system.explain(
            rows[begin : begin + size],
            machine,
            rounds=rounds,
            latent_steps=options.latent_steps,
            max_new_tokens=_written(runs.results[-1]) if runs.results else options.max_new_tokens,
            executor=options.executor,
        )
        for begin in range(0, len(rows), size)
    ]


def _written(result: RunResult) -> dict[str, int]:
    """Tokens that each agent wrote in a turn, on average."""
    turns: dict[str, list[float]] = {}
    for record in result.accounting:
        if record.op == "decode":
            turns.setdefault(record.agent, []).append(record.new_tokens / record.samples)
    return {agent: max(1, ceil(statistics.mean(own))) for agent, own in turns.items()}


def _beside_weights(guess: Explanation) -> int | None:
    if guess.peak_memory is None or guess.weights is None:
        return None
    return guess.peak_memory - guess.weights - guess.links


def _total(values: Sequence[float | None], count: int) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / count if known and len(known) == len(values) else None


def _devices(system: System) -> tuple[str, ...]:
    """Full names of all devices that hold weights; `cpu` for processors."""
    models = {id(b): b.model for b in system.agent_backbones.values()}.values()
    found = {weight.device for model in models for weight in model.parameters()}
    names = [
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        for device in sorted(found, key=str)
        if device.type != "meta"
    ]
    return tuple(names) or ("cpu",)


def _hourly(devices: Sequence[str], table: PriceTable) -> float | None:
    """Price of all devices per hour; None if one has none."""
    prices = [table.find(device) for device in devices]
    known = [price.per_hour for price in prices if price is not None]
    return sum(known) if len(known) == len(devices) else None


def _notes(
    runs: _Runs, devices: Sequence[str], table: PriceTable, machine: str | Hardware | None
) -> Iterator[str]:
    """What was not measured, where prices come from, and what the estimates are for."""
    for what, why in runs.costs[-1].unmeasured.items():
        yield f"Not measured: {what}: {why}."
    for device in dict.fromkeys(devices):
        price = table.find(device)
        if price is None:
            known = ", ".join(table.prices) or "none"
            yield f"No price: {device} is not in the table of prices, which has {known}."
            continue
        where = ", ".join(part for part in (price.source, price.date) if part)
        amount = f"{price.per_hour:g} {table.currency} per hour"
        yield f"Price of {device}: {amount}{f' ({where})' if where else ''}."
    if machine is None:
        yield f"No estimate: no known machine fits {devices[0]}; name one as hardware."
    else:
        yield ESTIMATE.format(name=machine if isinstance(machine, str) else machine.name)
