"""Costs of running by round, and of training links, an adapter and all weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from latentmas.io import digest_rows
from latentmas.metering import CostMeter
from latentmas.plan import RunOptions
from latentmas.runtime import System
from latentmas.studies.baselines import BaselineJob, Budget, open_baseline
from latentmas.studies.costs import measure_costs
from latentmas.studies.paper._base import Outcome, Section, sections
from latentmas.studies.paper.tasks import (
    asking_graph,
    asking_rows,
    learn,
    relay_graph,
    relay_training,
)
from latentmas.studies.paper.verdicts import Verdict, judge_range
from latentmas.studies.paper.work import Work
from latentmas.studies.tabulate import Sheet

__all__ = ["Costs"]

Plain = dict[str, Any]
MIB = 2**20
ABOVE = (1.0, float("inf"))
TRAINERS = {"lora": "LoRA", "sft": "full fine-tuning"}
TRAINING_NOTE = (
    "Medians of {n} trainings of {steps} steps of {batch} rows of the relay each, loading and "
    "checkpoints included, with the lowest and the highest; memory is the peak above what was held "
    "before. Links have {weights:,} weights."
)
RUN_HEAD = (
    *("rounds", "system", "seconds", "fastest to slowest", "CPU seconds", "tokens"),
    *("latent steps", "prompt positions", "peak MiB"),
)
TRAIN_HEAD = ("trained", "weights", "seconds", "fastest to slowest", "CPU seconds", "peak MiB")


@sections.register("costs")
class Costs(Section):
    """What runs and trainings take."""

    title = "Costs"
    claim = (
        "A latent team takes 34.6 to 75.6 % fewer tokens than a recursive text team and is 1.2 to "
        "2.4 times faster, more so with more rounds. Training its links takes 15.29 GB and less "
        "than LoRA or full fine-tuning."
    )
    task = (
        "The team of two agents of the section on rounds, untrained, against its text twin, whose "
        "agents write at most as many tokens per message as the reader has latent steps: seconds, "
        "tokens and memory per question. Then a few steps of training on the relay: the link, a "
        "LoRA adapter of as many weights, and all weights."
    )

    @staticmethod
    def run(work: Work) -> Outcome:
        """Measure, and compare ranges over repeats."""
        sizes = work.sizes
        rows = asking_rows(sizes)[1]
        needs: Plain = {"plan": _plan_digest(work), "device": work.device}
        needs |= {"data": digest_rows(rows), "rounds": sizes.run_rounds, "repeats": sizes.repeats}
        runs = work.once("runs", needs, lambda: _runs(work, rows))
        trained = _trainings(work)
        found = {name: one for name, one in trained.items() if "error" not in one}
        weights = found["links"]["parameters"]
        note = TRAINING_NOTE.format(
            n=sizes.repeats, steps=sizes.steps, batch=sizes.batch_size, weights=weights
        )
        return Outcome(
            verdicts=[*_run_verdicts(runs, sizes.run_rounds), *_train_verdicts(trained)],
            tables={
                "Runs, per question": _run_sheet(runs),
                "Trainings": Sheet(TRAIN_HEAD, list(_train_lines(found)), (note,)),
            },
            n=len(rows),
            seeds=1,
            notes=[
                f"Not measured: {TRAINERS[n]}: {e['error']}"
                for n, e in trained.items()
                if n not in found
            ],
        )


def _plan_digest(work: Work) -> str:
    return str(asking_graph(work, work.sizes).compile().digest)


def _runs(work: Work, rows: Sequence[Mapping[str, Any]]) -> Plain:
    """Costs of the team and its twin by round."""
    sizes = work.sizes
    system = work.load(asking_graph(work, sizes).compile())
    inputs = system.plan.graph.inputs
    questions = [{name: row[name] for name in inputs} for row in rows]
    report = measure_costs(
        system,
        questions,
        rounds=sizes.run_rounds,
        repeats=sizes.repeats,
        twin_tokens=sizes.latent_steps,
    )
    return report.to_dict()


def _trainings(work: Work) -> dict[str, Plain]:
    """Costs of trainings by what is trained; an error where it cannot be."""
    sizes = work.sizes
    rows = relay_training(sizes, 0)
    plan = relay_graph(work, sizes).compile()
    needs: Plain = {"plan": plan.digest, "rows": digest_rows(rows), "device": work.device}
    needs |= {"steps": sizes.steps, "batch": sizes.batch_size, "repeats": sizes.repeats}

    def links(folder: Path, seed: int) -> int:
        learn(work.load(plan, seed), rows, folder, seed, sizes)
        return int(plan.n_parameters)

    def baseline(name: str) -> Callable[[Path, int], int]:
        def make(folder: Path, seed: int) -> int:
            job = _job(work, work.load(plan, seed), rows, folder, seed)
            return open_baseline(name).make(job).effort.trained_parameters

        return make

    found = {"links": work.once("training-links", needs, lambda: _measure(work, "links", links))}
    for name in TRAINERS:
        problems = list(open_baseline(name).problems(plan))
        if problems:
            found[name] = {"error": problems[0]}
            continue
        measure = partial(_measure, work, name, baseline(name))
        found[name] = work.once(f"training-{name}", needs, measure)
    return found


def _job(
    work: Work, team: System, rows: Sequence[Mapping[str, Any]], folder: Path, seed: int
) -> BaselineJob:
    return BaselineJob(
        team=team,
        train_rows=rows,
        folder=folder,
        budget=Budget(work.sizes.steps, work.sizes.batch_size),
        answer_field="answer",
        seed=seed,
        run_options=RunOptions(),
    )


def _measure(work: Work, name: str, make: Callable[[Path, int], int]) -> Plain:
    """Train several times; what each training has written is removed."""
    costs, parameters = [], 0
    for seed in range(work.sizes.repeats):
        folder = work.folder / f"training-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with CostMeter() as meter:
            parameters = make(folder, seed)
        costs.append(meter.cost.to_dict())
        shutil.rmtree(folder, ignore_errors=True)
    return {"costs": costs, "parameters": parameters}


def _run_verdicts(runs: Plain, depths: Sequence[int]) -> Iterator[Verdict]:
    by_key = {(row["system"], row["rounds"]): row for row in runs["rows"]}
    for depth in depths:
        team, twin = by_key["team", depth], by_key["twin", depth]
        rounds = f"{depth} round{'s' * (depth > 1)}"
        share = None if not twin["new_tokens"] else team["new_tokens"] / twin["new_tokens"]
        yield judge_range(
            f"The team generates fewer tokens at {rounds}.",
            share,
            share,
            (0.0, 1.0 - 1e-9),
            paper="34.6 to 75.6 % fewer",
            what=f"team over twin; counted exactly, beside {team['latent_steps']:.1f} latent steps",
        )
        yield judge_range(
            f"The team is faster at {rounds}.",
            twin["fastest"] / team["slowest"],
            twin["slowest"] / team["fastest"],
            ABOVE,
            paper="1.2 to 2.4 times",
            what="seconds, twin over team",
        )


def _train_verdicts(trained: Mapping[str, Plain]) -> Iterator[Verdict]:
    links = trained["links"]["costs"]
    for name, label in TRAINERS.items():
        other = trained[name].get("costs")
        for what, key in (("time", "seconds"), ("memory", "peak_memory")):
            ends = (None, None) if other is None else _ratio(links, other, key)
            told = f"{what}, {label} over links" if ends[0] is not None else "not measured here"
            yield judge_range(
                f"Training links takes less {what} than {label}.",
                *ends,
                ABOVE,
                paper="15.29 GB, less than both" if key == "peak_memory" else "less than both",
                what=told,
            )


def _ratio(
    links: Sequence[Plain], other: Sequence[Plain], key: str
) -> tuple[float | None, float | None]:
    """Lowest and highest ratio of the other's cost to that of links."""
    one, two = ([cost[key] for cost in costs] for costs in (links, other))
    if not all(one) or not all(two):
        return None, None
    return min(two) / max(one), max(two) / min(one)


def _run_sheet(runs: Plain) -> Sheet:
    lines = []
    for row in runs["rows"]:
        numbers = [f"{row[name]:,.1f}" for name in ("new_tokens", "latent_steps", "prompt_tokens")]
        span = f"{row['fastest']:.3g} to {row['slowest']:.3g}"
        seconds, processor = (f"{row[name]:.3g}" for name in ("seconds", "cpu_seconds"))
        memory = _mib(row["memory"])
        lines.append(
            (str(row["rounds"]), row["system"], seconds, span, processor, *numbers, memory)
        )
    about = (
        f"Medians of {runs['repeats']} runs of {runs['questions']} questions on "
        f"{', '.join(runs['devices'])}, in which team and twin take turns; memory is the peak of "
        f"up to {runs['batch_size']} questions together, above what was held before."
    )
    return Sheet(RUN_HEAD, lines, (about, *runs["notes"]), words=2)


def _train_lines(found: Mapping[str, Plain]) -> Iterator[tuple[str, ...]]:
    for name, one in found.items():
        costs = one["costs"]
        seconds = [cost["seconds"] for cost in costs]
        peaks = [cost["peak_memory"] for cost in costs if cost["peak_memory"] is not None]
        yield (
            TRAINERS.get(name, name),
            f"{one['parameters']:,}",
            f"{median(seconds):.3g}",
            f"{min(seconds):.3g} to {max(seconds):.3g}",
            f"{median(cost['cpu_seconds'] for cost in costs):.3g}",
            _mib(max(peaks, default=None)),
        )


def _mib(value: int | None) -> str:
    return "–" if value is None else f"{value / MIB:,.1f}"
