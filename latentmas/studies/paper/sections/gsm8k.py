"""GSM8K: trained links against LoRA, one agent and words, on word problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.evaluation import load_benchmark
from latentmas.io import digest_rows
from latentmas.plan import Plan
from latentmas.runtime import System
from latentmas.spec import Graph
from latentmas.studies.baselines import run_baseline
from latentmas.studies.cells import CellResult
from latentmas.studies.paper._base import Outcome, Section, Skipped, sections
from latentmas.studies.paper._compare import Claim, compared, judged, missing, rank_note
from latentmas.studies.paper.tasks import learn, training_of
from latentmas.studies.paper.work import Work

__all__ = ["GSM8K"]

Row = Mapping[str, Any]
TEST, TRAIN = "gsm8k", "gsm8k-train"
TEAM, TWIN, SINGLE, LORA = "trained team", "text twin", "single agent", "LoRA"
PLAN = "Plan in one or two sentences how to solve this problem.\n{{ question }}"
SOLVE = "Plan: {{ plan }}\nProblem: {{ question }}"
CLAIMS: Sequence[Claim] = (
    ("The trained team answers better than its text twin.", "+8.3 % on average", TEAM, TWIN, False),
    ("The trained team answers better than one agent.", "+8.3 % on average", TEAM, SINGLE, False),
    ("Links beat LoRA at equal numbers of weights.", "higher", TEAM, LORA, False),
)


@sections.register("gsm8k")
class GSM8K(Section):
    """A planner and a solver on GSM8K."""

    title = "GSM8K"
    claim = (
        "On benchmarks of mathematics, teams with trained links answer better than text teams, "
        "single agents and fine-tuned ones. GSM8K is not among the paper's benchmarks."
    )
    task = (
        "A planner sends latents to a solver. Questions are the first of the test split, graded by "
        "math-verify; the outer link and the LoRA adapter learn the solutions of rows of the train "
        "split, with equal numbers of weights, rows and steps."
    )
    data = (TEST, TRAIN)

    @staticmethod
    def run(work: Work) -> Outcome:
        """Make every system and compare."""
        rows, told = _read(work)
        plan = _graph(work).compile()
        team = [_team(work, plan, rows, told, seed) for seed in range(work.seeds)]
        lacks, seeds = missing("lora", plan), range(work.seeds)
        lora = [] if lacks else [_baseline(work, plan, rows, "lora", told, n) for n in seeds]
        cells = {
            TEAM: team,
            TWIN: [_baseline(work, plan, rows, "text_twin")],
            SINGLE: [_baseline(work, plan, rows, "single")],
            LORA: lora,
        }
        found = {label: work.row(label, own) for label, own in cells.items() if own}
        trained = {TEAM: plan.n_parameters}
        trained |= {LORA: lora[0].facts["effort"]["trained_parameters"]} if lora else {}
        return Outcome(
            verdicts=judged(found, CLAIMS),
            tables={"GSM8K": compared(found, trained)},
            n=len(rows),
            seeds=work.seeds,
            notes=[f"LoRA is not measured: {lacks}" if lacks else rank_note(lora[0])],
        )


def _read(work: Work) -> tuple[Sequence[Row], Sequence[Row]]:
    """Questions, and training rows whose answers are solutions.

    Raises:
        Skipped: a data set is not there.
    """
    rows = _load(work, TEST, "test", work.sizes.rows)
    told = _load(work, TRAIN, "train", work.sizes.train_rows)
    return rows, [row | {"answer": _solution(row)} for row in told]


def _load(work: Work, name: str, split: str, limit: int) -> list[dict[str, Any]]:
    """Rows of a file, or of the Hub.

    Raises:
        Skipped: no file is given, and the Hub cannot be read.
        DataError: the file cannot be read.
    """
    if name in work.data:
        return load_benchmark("gsm8k", path=work.data[name], limit=limit)
    try:
        return load_benchmark("gsm8k", split=split, limit=limit)
    except (LatentMASError, OSError, ImportError) as error:
        raise Skipped(
            "GSM8K is not here: give its files with --data gsm8k=test.jsonl --data "
            f"gsm8k-train=train.jsonl, or let it be downloaded from the Hub ({error!s:.120}…)"
        ) from error


def _solution(row: Row) -> str:
    """What the solver learns to write: the solution, and the result in the form to grade."""
    return f"{row['solution']}\n\\boxed{{{row['answer']}}}"


def _graph(work: Work) -> Graph:
    sizes = work.sizes
    graph = Graph("gsm8k", inputs=["question"], rounds=1, latent_steps=sizes.latent_steps)
    graph.add_agent("planner", work.backbone("reader"), prompt=PLAN, inner="soft_token")
    graph.add_agent(
        "solver", work.backbone("answerer"), prompt=SOLVE, max_new_tokens=sizes.max_new_tokens
    )
    graph.connect("planner", "solver.plan", link="soft_token", residual=True)
    return graph.output("solver")


def _team(
    work: Work, plan: Plan, rows: Sequence[Row], told: Sequence[Row], seed: int
) -> CellResult:
    def prepare(folder: Path) -> System:
        return learn(work.load(plan, seed), told, folder / "training", seed, work.sizes)

    return work.cell(
        {"system": "team", "seed": seed},
        plan,
        prepare,
        rows,
        depends_on={"train_rows": digest_rows(told), "training": training_of(work.sizes)},
        grader="math",
    )


def _baseline(
    work: Work,
    plan: Plan,
    rows: Sequence[Row],
    name: str,
    told: Sequence[Row] | None = None,
    seed: int = 0,
) -> CellResult:
    sizes = work.sizes
    own: dict[str, Any] = {} if name != "text_twin" else {"max_new_tokens": sizes.latent_steps}
    report = run_baseline(
        name,
        plan,
        rows,
        folder=work.folder,
        train_rows=told,
        max_steps=sizes.steps,
        train_batch_size=sizes.batch_size,
        seed=seed,
        with_team=False,
        grader="math",
        load=lambda plan: work.load(plan, seed),
        **own,
    )
    work.say(f"{name}, seed {seed}: {100 * report.systems[name].score:.1f}")
    return report.cells[name][0]
