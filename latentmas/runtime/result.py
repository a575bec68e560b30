"""`RunResult`: the result of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from latentmas.errors import LatentMASError
from latentmas.generation import FinishReason, ToolCall
from latentmas.runtime.observing.events import StepRecord

if TYPE_CHECKING:
    from latentmas.runtime.observing.recording import RunRecord

__all__ = ["RunResult"]


@dataclass(frozen=True)
class RunResult:
    """Answers of a run, with its costs and any recorded tensors, which are on the CPU."""

    texts: list[str]
    """Answers of the output agent, one for each sample."""
    token_ids: list[list[int]]
    """Token ids of each answer, without the end token but with those added by tools or a retry."""
    sequences: list[list[str]] = field(default_factory=list, repr=False)
    """All answers of each sample; the first is the one in `texts`."""
    sequence_ids: list[list[list[int]]] = field(default_factory=list, repr=False)
    """Token ids of all answers of each sample."""
    finish_reasons: list[list[FinishReason]] = field(default_factory=list, repr=False)
    """Why each answer ended: `"stop"`; `"length"` at the token limit or the context's end;
    `"tool_limit"` when it asked for more tool calls than its agent may make."""
    errors: dict[int, LatentMASError] = field(default_factory=dict)
    """Errors by sample number, with `on_error="keep"`. A sample with an error has an empty text and
    no sequences; its rows of messages and states are NaN, and no record counts it."""
    manifest_error: Exception | None = field(default=None, repr=False)
    """Why the manifest could not be written; None if it was written or not requested."""
    tool_calls: list[list[ToolCall]] = field(default_factory=list, repr=False)
    """Tool calls of all agents for each sample, in the order of the plan's steps; each has its
    agent and round."""
    retried: list[int] = field(default_factory=list, repr=False)
    """Numbers of the samples with an answer that a retry continued."""
    messages: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """`"round1.planner->critic"` → message_BKD; with `record=("messages",)`."""
    states: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """`"round1.planner"` → raw states h_BKD; with `record=("states",)`."""
    text_messages: dict[str, list[str]] = field(default_factory=dict, repr=False)
    """`"round1.planner.text"` → texts sent along text edges; always recorded."""
    accounting: list[StepRecord] = field(default_factory=list, repr=False)
    """Costs of each round and agent, summed over batches, in plan order."""
    seconds: float = 0.0
    """Duration of the run."""
    executor: str = ""
    """Name of the executor."""
    record: RunRecord | None = field(default=None, repr=False)
    """Data for `report`, with `record=("report",)`."""

    @property
    def text(self) -> str:
        """The answer of a run over one sample.

        Raises:
            LatentMASError: The run has no answer, or several.
        """
        if len(self.texts) != 1:
            raise LatentMASError(f"the run has {len(self.texts)} answers; read .texts")
        return self.texts[0]

    @property
    def steps(self) -> list[StepRecord]:
        """Alias of `accounting`."""
        return self.accounting

    def summary(self) -> str:
        """The accounting as a text table, with totals."""
        total = StepRecord(0, "", "", **_sums(self.accounting))
        lines = [
            f"{'round':>5}  {'agent':<16}{'op':<9}{'prompt':>8}{'latent':>8}{'text':>8}"
            f"{'calls':>7}{'seconds':>10}"
        ]
        for r in [*self.accounting, total]:
            place = f"{r.round:>5}  {r.agent:<16}{r.op:<9}" if r.round else f"{'total':<32}"
            lines.append(
                f"{place}{r.prompt_tokens:>8}{r.latent_steps:>8}{r.new_tokens:>8}"
                f"{r.tool_calls:>7}{r.seconds:>10.3f}"
            )
        return "\n".join(lines)

    def report(
        self,
        path: str | Path,
        *,
        twin: RunResult | None = None,
        gold: Sequence[str | None] | None = None,
        scores: Sequence[float | None] | None = None,
        twin_scores: Sequence[float | None] | None = None,
        grader: str | None = None,
    ) -> Path:
        """Write a report of the run: one HTML file that needs no network.

        It shows the graph, the answers, a timeline, the tokens nearest to the latents, the norms of
        the latents and how much they change from round to round, and all costs. The report of an
        evaluation, `Evaluation.report`, also shows which answers are right.

        Args:
            path: File to write, such as `run.html`.
            twin: Run of the text twin (`system.text_twin()`) over the same samples, to show beside
                this one.
            gold: Correct answer of each sample; None where it is unknown.
            scores: Score of each answer, from 0 or `False` (wrong) to 1 (right); None where it is
                unknown.
            twin_scores: Scores of the twin's answers.
            grader: Name of the grader or metric that the scores come from, to show beside them.

        Returns:
            The path.

        Raises:
            LatentMASError: The run was not recorded with `record=("report",)`, the twin ran over
                different samples, `gold` or scores differ from the answers in number, a score is
                out of range, or `grader` is given without scores.
        """
        from latentmas.viz import report_run

        return report_run(
            self,
            Path(path),
            twin=twin,
            gold=gold,
            scores=scores,
            twin_scores=twin_scores,
            grader=grader,
        )


def _sums(records: Sequence[StepRecord]) -> dict[str, Any]:
    names = [field.name for field in fields(StepRecord) if field.name not in _KEY]
    return {name: sum(getattr(record, name) for record in records) for name in names}


_KEY = ("round", "agent", "op")


def add_up(records: Sequence[StepRecord]) -> list[StepRecord]:
    """Sum records of several batches by round, agent and kind of step."""
    groups: dict[tuple[int, str, str], list[StepRecord]] = {}
    for record in records:
        groups.setdefault((record.round, record.agent, record.op), []).append(record)
    return [StepRecord(*key, **_sums(group)) for key, group in groups.items()]
