"""What training on the rows of a single agent takes: prompts, answers and their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from latentmas.engine import answer_ids, prompt_ids
from latentmas.runtime import System
from latentmas.studies.baselines._base import BaselineJob, Effort, Row, count_parameters

__all__ = ["effort_of", "rows_seen", "single_texts"]


def single_texts(
    system: System, rows: Sequence[Row], answer_field: str
) -> list[tuple[list[int], list[int]]]:
    """Token ids of the prompt and of the answer of each row, as the runtime reads and writes them.

    Args:
        system: System of one agent.
        rows: Training rows.
        answer_field: Field with the answer.
    """
    agent = system.plan.graph.agent(system.plan.output)
    backbone = system.backbone_of(agent.name)
    found = []
    for row in rows:
        scope = {name: row[name] for name in system.plan.graph.inputs}
        scope |= {
            str(edge.slot): system.outside_texts([scope])[edge.source][0]
            for edge in system.plan.graph.edges
        }
        prompt = prompt_ids(backbone, agent, [scope], {})[0].tolist()
        found.append((prompt, answer_ids(backbone, str(row[answer_field]))))
    return found


def rows_seen(rows: int, batch_size: int, steps: int) -> int:
    """Number of rows that a training sees; the last batch of a pass over the data may be smaller.

    Args:
        rows: Number of training rows.
        batch_size: Number of rows per step.
        steps: Number of steps.
    """
    in_pass = -(-rows // batch_size)
    passes, rest = divmod(steps, in_pass)
    return passes * rows + min(rest * batch_size, rows)


def effort_of(job: BaselineJob, system: System, trained: int) -> Effort:
    """What training a single agent with the job's budget took.

    Args:
        job: Job of the baseline.
        system: Trained system.
        trained: Number of weights that were trained.
    """
    texts = single_texts(system, job.train_rows, job.answer_field)
    seen = rows_seen(len(texts), job.budget.batch_size, job.budget.max_steps)
    mean = fmean(len(prompt) + len(answer) for prompt, answer in texts)
    return Effort(
        trained_parameters=trained,
        parameters=count_parameters(system),
        steps=job.budget.max_steps,
        rows=seen,
        tokens=round(mean * seen),
    )
