"""Rounds of training and of running, on a task that one round cannot do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from latentmas.io import digest_rows
from latentmas.plan import Plan
from latentmas.runtime import System
from latentmas.studies.cells import CellResult
from latentmas.studies.paper._asking import asking_sweep, asking_trained
from latentmas.studies.paper._base import Outcome, Section, sections
from latentmas.studies.paper._compare import compared
from latentmas.studies.paper._sweeps import outcome_of, pair_verdict, row_of
from latentmas.studies.paper.tasks import asking_correct, asking_graph, asking_rows, training_of
from latentmas.studies.paper.verdicts import Verdict
from latentmas.studies.paper.work import Work
from latentmas.studies.summary import StudyRow
from latentmas.studies.sweeps import Sweep

__all__ = ["Rounds"]

MORE = "More rounds answer better."
DEEPER = "Training through more rounds helps at {run} of running."
RISES = "scores rise over rounds 1 to 3"
APART = (
    "Three agents: the link of the asker is the one that the team of two learned in one round, "
    "the answerer's is untrained, and the feedback is the asker's latents."
)


@sections.register("rounds")
class Rounds(Section):
    """A heat map of rounds of training and of running, and the team of three agents."""

    title = "Rounds"
    claim = (
        "More rounds answer better, and training through more rounds helps at any number of rounds "
        "of running."
    )
    task = (
        "The reader sees six facts about one person and sends about one fact's worth of latents; "
        "only the answerer sees the question, and what it sends reaches the reader in the next "
        "round. So one round is not enough by construction."
    )
    models = ("answerer",)

    @staticmethod
    def run(work: Work) -> Outcome:
        """Sweep over rounds of training; then the team of three agents."""
        sizes = work.sizes
        found = asking_sweep(work, sizes.train_rounds, range(work.seeds), progress=work.progress)
        three = _three(work) if not found.failed else {}
        outcome = outcome_of(
            work, found, "Two agents, by rounds of training and of running", [], [APART]
        )
        tables: dict[str, Any] = dict(outcome.tables)
        if three:
            tables["Three agents"] = compared({_rounds(n): row for n, row in three.items()})
        verdicts = [*_apart(three, sizes.run_rounds), *_grid(found, work)]
        return replace(outcome, verdicts=verdicts, tables=tables)


def _grid(found: Sweep, work: Work) -> list[Verdict]:
    """Verdicts on the team of two agents."""
    trained, runs = sorted(work.sizes.train_rounds), sorted(work.sizes.run_rounds)

    def row(train: int, run: int) -> StudyRow | None:
        return row_of(found, {"train_rounds": train, "run_rounds": run})

    verdicts = [
        pair_verdict(
            MORE,
            row(depth, runs[-1]),
            row(depth, runs[0]),
            f"two agents trained through {depth}, {runs[-1]} rounds less {runs[0]}",
            paper=RISES,
        )
        for depth in trained
    ]
    for run in runs if len(trained) > 1 else []:
        verdicts.append(
            pair_verdict(
                DEEPER.format(run=_rounds(run)),
                row(trained[-1], run),
                row(trained[0], run),
                f"two agents, trained through {trained[-1]} less {trained[0]}",
                paper="at every depth",
            )
        )
    return verdicts


def _apart(three: Mapping[int, StudyRow], runs: Sequence[int]) -> list[Verdict]:
    """The verdict on the team of three agents."""
    first, second = sorted(runs)[:2] if len(runs) > 1 else (1, 2)
    what = f"three agents, {second} rounds less {first}"
    return [pair_verdict(MORE, three.get(second), three.get(first), what, paper=RISES)]


def _rounds(count: int) -> str:
    return f"{count} round{'s' * (count != 1)}"


def _three(work: Work) -> dict[int, StudyRow]:
    """The team of three agents by rounds of running, over seeds."""
    runs = {f"rounds={n}": {"rounds": n} for n in work.sizes.run_rounds}
    cells = [_three_cell(work, seed, runs) for seed in range(work.seeds)]
    return {n: work.row(_rounds(n), cells, f"rounds={n}") for n in work.sizes.run_rounds}


def _three_cell(work: Work, seed: int, runs: Mapping[str, Mapping[str, Any]]) -> CellResult:
    told, rows = asking_rows(work.sizes)
    plan = asking_graph(work, work.sizes, apart=True).compile()
    start = min(work.sizes.train_rounds)

    def prepare(_: object) -> System:
        return _moved(work, plan, start, seed)

    return work.cell(
        {"team": "three agents", "seed": seed},
        plan,
        prepare,
        rows,
        depends_on={
            "train_rows": digest_rows(told),
            "training": training_of(work.sizes),
            "train_rounds": start,
        },
        grader=asking_correct,
        runs=runs,
    )


def _moved(work: Work, plan: Plan, train_rounds: int, seed: int) -> System:
    """The team of three, with the link that the team of two has learned at the asker."""
    learned = asking_trained(work, train_rounds, seed).link("outer.reader->answerer.note")
    state = {name: weight.clone() for name, weight in learned.state_dict().items()}
    system = work.load(plan, seed)
    system.link("outer.reader->asker.note").load_state_dict(state)
    return system
