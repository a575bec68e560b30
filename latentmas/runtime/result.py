"""`RunResult`: what a run gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from latentmas.errors import LatentMASError
from latentmas.runtime.events import TurnRecord

__all__ = ["RunResult"]


@dataclass(frozen=True)
class RunResult:
    """Answers of a run, with what was asked to be recorded.

    `messages` and `states` are on the CPU.
    """

    texts: list[str]
    """The output agent's answers, one for each sample."""
    token_ids: list[list[int]]
    """Their tokens, without the end token."""
    messages: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """`"round1.planner->critic"` → message_BKD; with `record=("messages",)`."""
    states: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """`"round1.planner"` → raw states h_BKD; with `record=("states",)`."""
    spoken: dict[str, list[str]] = field(default_factory=dict, repr=False)
    """`"round1.planner.text"` → what was said on text edges; always recorded."""
    accounting: list[TurnRecord] = field(default_factory=list, repr=False)
    """A record for each round and agent, batches added up, in plan order."""
    seconds: float = 0.0

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
    def steps(self) -> list[TurnRecord]:
        """Another name of `accounting`."""
        return self.accounting

    def summary(self) -> str:
        """The accounting as a table of text."""
        lines = [
            f"{'round':>5}  {'agent':<16}{'op':<9}"
            f"{'prompt':>8}{'latent':>8}{'text':>8}{'seconds':>10}"
        ]
        lines += [
            f"{r.round:>5}  {r.agent:<16}{r.op:<9}{r.prompt_tokens:>8}{r.latent_steps:>8}"
            f"{r.new_tokens:>8}{r.seconds:>10.3f}"
            for r in self.accounting
        ]
        return "\n".join(lines)


def add_up(records: Sequence[TurnRecord]) -> list[TurnRecord]:
    """Records of several batches, added up by round, agent and step kind."""
    totals: dict[tuple[int, str, str], TurnRecord] = {}
    for r in records:
        key = (r.round, r.agent, r.op)
        old = totals.get(key, TurnRecord(*key, 0, 0.0, 0, 0, 0))
        totals[key] = TurnRecord(
            *key,
            samples=old.samples + r.samples,
            seconds=old.seconds + r.seconds,
            prompt_tokens=old.prompt_tokens + r.prompt_tokens,
            latent_steps=old.latent_steps + r.latent_steps,
            new_tokens=old.new_tokens + r.new_tokens,
        )
    return list(totals.values())
