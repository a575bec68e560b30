"""The relay: a trained team beside what else could answer, on the demo's task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from latentmas.io import digest_rows
from latentmas.plan import Plan
from latentmas.studies.baselines import run_baseline
from latentmas.studies.cells import CellResult
from latentmas.studies.paper._base import Outcome, Section, sections
from latentmas.studies.paper._compare import Claim, compared, judged, missing, rank_note
from latentmas.studies.paper.tasks import (
    lone,
    relay_correct,
    relay_graph,
    relay_rows,
    relay_trained,
    relay_training,
    training_of,
)
from latentmas.studies.paper.work import Work
from latentmas.studies.summary import StudyRow

__all__ = ["Relay"]

TEAM, UNTRAINED, TWIN, SINGLE = "trained team", "untrained team", "text twin", "single agent"
LORA, MIXTURE, ALONE = "LoRA", "mixture of agents", "alone"
SHUFFLED, ZEROED = "shuffled", "zeroed"
CLAIMS: Sequence[Claim] = (
    ("The trained team answers better than its text twin.", "+8.3 % on average", TEAM, TWIN, False),
    ("The trained team answers better than one agent.", "+8.3 % on average", TEAM, SINGLE, False),
    ("Links beat LoRA at equal numbers of weights.", "higher", TEAM, LORA, False),
    ("The team answers better than a text mixture.", "higher", TEAM, MIXTURE, False),
    ("Training the links helps.", "", TEAM, UNTRAINED, True),
    ("The answer comes from the message: others do not serve.", "", TEAM, SHUFFLED, True),
    ("Without messages, the team cannot answer.", "", TEAM, ZEROED, True),
)
CONTROLS = (
    "“shuffled” is the trained team with the message of another question, “zeroed” without one."
)


@sections.register("relay")
class Relay(Section):
    """A team on the relay, with its controls and baselines."""

    title = "A team on a task that needs its messages"
    claim = (
        "Agents that hand each other latent states and are trained at their links answer better "
        "than text teams, single agents and fine-tuned ones: +8.3 % on average over nine "
        "benchmarks; the light team has 77.8 on MATH500, its text twin 69.1."
    )
    task = (
        "The relay of the demo: the reader sees a passage of two random facts, the answerer a "
        "question about one of them and the reader's message. One outer link is trained on "
        "answers. Single agent: the answerer with the passage in its prompt, in words. LoRA: the "
        "same agent, trained on the same rows and steps, with as many weights as the link. Text "
        "twin: the same graph in text, with as many tokens as there are latent steps. Not the "
        "paper's benchmarks and not its models."
    )

    @staticmethod
    def run(work: Work) -> Outcome:
        """Make every system and compare."""
        sizes, plan = work.sizes, relay_graph(work, work.sizes).compile()
        rows, told = relay_rows(sizes), _told()
        team = [_team(work, plan, rows, seed) for seed in range(work.seeds)]
        lacks = missing("lora", plan)
        lora = [] if lacks else [_lora(work, plan, rows, seed) for seed in range(work.seeds)]
        cells = {
            TEAM: team,
            UNTRAINED: [_untrained(work, plan, rows)],
            TWIN: [_baseline(work, plan, rows, "text_twin", max_new_tokens=sizes.latent_steps)],
            SINGLE: [_lone(work, rows, "ceiling")],
            LORA: lora,
            MIXTURE: [_baseline(work, plan, rows, "mixture_of_agents", prompt=told)],
            ALONE: [_lone(work, rows, "alone")],
        }
        found = {label: work.row(label, own) for label, own in cells.items() if own}
        found |= {name: _control(work, team, name) for name in (SHUFFLED, ZEROED)}
        trained = dict.fromkeys((TEAM, SHUFFLED, ZEROED), plan.n_parameters)
        notes = [CONTROLS, f"LoRA is not measured: {lacks}" if lacks else rank_note(lora[0])]
        trained |= {LORA: lora[0].facts["effort"]["trained_parameters"]} if lora else {}
        return Outcome(
            verdicts=judged(found, CLAIMS),
            tables={"The relay": compared(found, trained)},
            n=len(rows),
            seeds=work.seeds,
            notes=notes,
        )


def _told() -> str:
    """Prompt of an agent that is shown the passage."""
    from latentmas.demo.real import ANSWERS

    return ANSWERS["ceiling"]


def _team(work: Work, plan: Plan, rows: Sequence[Mapping[str, Any]], seed: int) -> CellResult:
    told = relay_training(work.sizes, seed)
    return work.cell(
        {"system": "team", "seed": seed},
        plan,
        lambda folder: relay_trained(work, seed),
        rows,
        depends_on={"train_rows": digest_rows(told), "training": training_of(work.sizes)},
        grader=relay_correct,
        controls=(SHUFFLED, ZEROED),
    )


def _lora(work: Work, plan: Plan, rows: Sequence[Mapping[str, Any]], seed: int) -> CellResult:
    return _baseline(
        work,
        plan,
        rows,
        "lora",
        train_rows=relay_training(work.sizes, seed),
        max_steps=work.sizes.steps,
        train_batch_size=work.sizes.batch_size,
        seed=seed,
        prompt=_told(),
    )


def _baseline(
    work: Work, plan: Plan, rows: Sequence[Mapping[str, Any]], name: str, **options: Any
) -> CellResult:
    seed = options.get("seed", 0)
    report = run_baseline(
        name,
        plan,
        rows,
        folder=work.folder,
        with_team=False,
        grader=relay_correct,
        load=lambda plan: work.load(plan, seed),
        **options,
    )
    work.say(f"{name}, seed {seed}: {100 * report.systems[name].score:.1f}")
    return report.cells[name][0]


def _untrained(work: Work, plan: Plan, rows: Sequence[Mapping[str, Any]]) -> CellResult:
    def load(_: object) -> Any:
        return work.load(plan)

    return work.cell({"system": "untrained"}, plan, load, rows, grader=relay_correct)


def _lone(work: Work, rows: Sequence[Mapping[str, Any]], name: str) -> CellResult:
    plan = lone(work, work.sizes, name).compile()

    def load(_: object) -> Any:
        return work.load(plan)

    return work.cell({"system": name}, plan, load, rows, grader=relay_correct)


def _control(work: Work, cells: Sequence[CellResult], name: str) -> StudyRow:
    """The trained team with messages replaced, over its seeds."""
    found = []
    for cell in cells:
        own = cell.evaluation()
        other = own["others"][name] | {"row_questions": own["row_questions"]}
        found.append(replace(cell, evaluations={"": other}))
    return work.row(name, found)
