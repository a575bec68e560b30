"""`RunResult`: what a run gives back."""

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
    """Answers of a run, with what was asked to be recorded.

    `messages` and `states` are on the CPU.
    """

    texts: list[str]
    """The output agent's answers, one for each sample."""
    token_ids: list[list[int]]
    """Their tokens, without the end token; what tools or a retry added is among them."""
    sequences: list[list[str]] = field(default_factory=list, repr=False)
    """All answers of each sample, the first of which is in `texts`."""
    sequence_ids: list[list[list[int]]] = field(default_factory=list, repr=False)
    """Their tokens."""
    finish_reasons: list[list[FinishReason]] = field(default_factory=list, repr=False)
    """Why each answer ended: `"stop"`; `"length"` at a limit of tokens or of the context;
    `"tool_limit"` when it asked for more tool calls than its agent may make."""
    errors: dict[int, LatentMASError] = field(default_factory=dict)
    """Number of a sample → why it has no answer; with `on_error="keep"`. Its text is empty, it has
    no sequences, its rows of messages and states are NaN, and no record counts it."""
    manifest_error: Exception | None = field(default=None, repr=False)
    """Why the manifest could not be written; None if it was, or if none was asked for."""
    tool_calls: list[list[ToolCall]] = field(default_factory=list, repr=False)
    """The tool calls of all agents for each sample, in the order of the plan's steps; each names
    its agent and round."""
    retried: list[int] = field(default_factory=list, repr=False)
    """Samples with an answer that was led on by a retry."""
    messages: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """`"round1.planner->critic"` → message_BKD; with `record=("messages",)`."""
    states: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """`"round1.planner"` → raw states h_BKD; with `record=("states",)`."""
    text_messages: dict[str, list[str]] = field(default_factory=dict, repr=False)
    """`"round1.planner.text"` → what was said on text edges; always recorded."""
    accounting: list[StepRecord] = field(default_factory=list, repr=False)
    """A record for each round and agent, batches added up, in plan order."""
    seconds: float = 0.0
    executor: str = ""
    """Name of the executor."""
    record: RunRecord | None = field(default=None, repr=False)
    """What `report` shows; with `record=("report",)`."""

    @property
    def text(self) -> str:
        """The answer of a run over one sample.

        Raises:
            LatentMASError: when there is not exactly one.
        """
        if len(self.texts) != 1:
            raise LatentMASError(f"the run has {len(self.texts)} answers; read .texts")
        return self.texts[0]

    @property
    def steps(self) -> list[StepRecord]:
        """Another name of `accounting`."""
        return self.accounting

    def summary(self) -> str:
        """The accounting as a table of text, with totals."""
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
    ) -> Path:
        """Write the run as a page of HTML: one file that needs no network.

        It shows the graph, the answers, a timeline, what the latents are near to, their norms, how
        much they change from round to round, and all costs. `Evaluation.report` also says which
        answers are right.

        Args:
            path: the file to write, `run.html` say.
            twin: a run of the text twin (`system.text_twin()`) over the same samples, to be
                shown beside it.
            gold: the right answer of each sample, or None where there is none.
            scores: how right each answer is, from 0 (wrong, also `False`) to 1 (right); None where
                that is not known.
            twin_scores: the same of the twin's answers.

        Raises:
            LatentMASError: the run has recorded nothing for a report, the twin ran over other
                samples, `gold` or scores have another length, or a score is out of range.
        """
        from latentmas.viz import report_run

        return report_run(
            self,
            Path(path),
            twin=twin,
            gold=gold,
            scores=scores,
            twin_scores=twin_scores,
        )


def _sums(records: Sequence[StepRecord]) -> dict[str, Any]:
    names = [field.name for field in fields(StepRecord) if field.name not in _KEY]
    return {name: sum(getattr(record, name) for record in records) for name in names}


_KEY = ("round", "agent", "op")


def add_up(records: Sequence[StepRecord]) -> list[StepRecord]:
    """Records of several batches, added up by round, agent and step kind."""
    groups: dict[tuple[int, str, str], list[StepRecord]] = {}
    for record in records:
        groups.setdefault((record.round, record.agent, record.op), []).append(record)
    return [StepRecord(*key, **_sums(group)) for key, group in groups.items()]
