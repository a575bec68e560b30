"""`record=("report",)`: what a run keeps for its report, as plain data.

Shapes: `B` batch, `K` latent steps, `D` width.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentmas.backbones import LoadedBackbone
from latentmas.plan import Plan, Rollout, Step, Transfer
from latentmas.runtime.interpreter import BatchState
from latentmas.runtime.loading.init_weights import embedding_norm
from latentmas.runtime.observing.events import Event, StepBegin, StepEnd
from latentmas.runtime.observing.logit_lens import Near, nearest_embeddings, nearest_outputs

if TYPE_CHECKING:
    from latentmas.engine import DecoderSession, Executor, Packed
    from latentmas.runtime.system import System

__all__ = ["LatentReading", "ReportRecorder", "RunRecord", "StepTimes"]

SAMPLES, NEAREST = 3, 5
"""How many samples' latents are read as tokens, and how many tokens each."""


@dataclass(frozen=True)
class StepTimes:
    """When a step ran, in seconds; batches are added up."""

    round: int
    """Round of the step."""
    agent: str
    """Agent of the step."""
    op: str
    """`rollout`, `transfer` or `decode`."""
    name: str
    """Name of the value that the step made."""
    seconds: float
    """Duration of the step."""
    prompt_seconds: float
    """Seconds until the prompt was rendered and read."""
    within: str | None = None
    """The rollout whose batch it was a part of, when it ran together with another agent's."""


@dataclass(frozen=True)
class LatentReading:
    """What the states of a rollout, or a message, look like."""

    name: str
    """`round1.planner` for states, `round1.planner->critic` for a message."""
    round: int
    """Round in which the value was made."""
    agent: str
    """In whose embedding space `norms` are: the agent itself, or the receiver."""
    norms: list[float]
    """Mean norm at each latent step of what the agent feeds back to itself, or of its message."""
    embedding_norm: float
    """Mean norm of that agent's input embeddings."""
    raw_norms: list[float] | None
    """Mean norm of the raw states; None for messages."""
    nearest: list[list[Near]]
    """For each of the first samples and each latent step, the nearest tokens: likeliest next ones
    of states, nearest input embeddings of a message. Empty for a sample that failed."""


@dataclass(frozen=True)
class RunRecord:
    """What a run with `record=("report",)` has kept: all that `RunResult.report` shows."""

    plan: Plan
    """Plan that ran."""
    samples: list[dict[str, str]]
    """The first samples' inputs."""
    turns: list[StepTimes]
    """Duration of each step."""
    readings: list[LatentReading]
    """Readings of the latents, one for each value."""
    cosines: dict[str, list[list[float | None]]]
    """`planner->critic` or `planner` → mean cosine of what it was in one round and another, step by
    step; None for a round without one."""
    batches: int
    """Number of batches."""
    devices: dict[str, str]
    """Backbone → device and type of its weights."""


@dataclass
class _Sums:
    """Sums for one value, over the samples of all batches."""

    count: int = 0
    norms_K: Tensor | None = None
    raw_norms_K: Tensor | None = None
    nearest: dict[int, list[Near]] = field(default_factory=dict)


class ReportRecorder:
    """Watches a run and reads the values of its walks."""

    def __init__(self, system: System, plan: Plan, samples: Sequence[Mapping[str, Any]]) -> None:
        self.system, self.plan = system, plan
        inputs = plan.graph.inputs
        self.samples = [{name: str(s.get(name, "")) for name in inputs} for s in samples[:SAMPLES]]
        self._steps = [0.0] * len(plan.steps)
        self._prompts = [0.0] * len(plan.steps)
        self._began, self._now = 0.0, (0, 0)
        self._reads: dict[tuple[int, int], float] = {}
        self._sums: dict[str, _Sums] = {}
        self._pairs: dict[tuple[str, int, int], tuple[float, int]] = {}
        self._embedding_norms: dict[int, float] = {}

    def timed(self, executor: Executor) -> Executor:
        """The executor for this run, which notes when it has read prompts.

        It is a copy: other threads may run the same executor, and must not see this run's clock.
        """
        make = executor.session

        def session(backbone: LoadedBackbone) -> DecoderSession:
            last = self._now[1] == len(self.plan.steps) - 1  # it counts from here on
            began = time.perf_counter() if last else self._began
            made = make(backbone)
            read = made.prefill

            def prefill(prompt: Packed) -> Tensor:
                h_BD = read(prompt)
                if h_BD.device.type == "cuda":
                    torch.cuda.synchronize(h_BD.device)
                self._reads[self._now] = time.perf_counter() - began
                return h_BD

            made.prefill = prefill  # type: ignore[method-assign]
            return made

        own = copy.copy(executor)
        own.session = session  # type: ignore[method-assign]
        return own

    def on_event(self, event: Event) -> None:
        """Take in an event of the run."""
        if isinstance(event, StepBegin):
            self._began, self._now = time.perf_counter(), (event.batch, event.step)
        elif isinstance(event, StepEnd):
            self._steps[event.step] += event.seconds
            read = self._reads.pop((event.batch, event.step), 0.0)
            self._prompts[event.step] += min(read, event.seconds)

    @torch.no_grad()
    def read(self, walk: BatchState) -> None:
        """Take in the values of a finished walk."""
        rounds: dict[str, dict[int, Tensor]] = {}
        for step in self.plan.steps:
            value = walk.values.get(step.output)
            if not isinstance(step, Rollout | Transfer) or not isinstance(value, Tensor):
                continue
            if not value.shape[1]:
                continue
            self._take(step, value, walk.rows)
            rounds.setdefault(step.value.label, {})[step.round] = value
        for key, values in rounds.items():
            for one in values:
                for other in (number for number in values if number > one):
                    self._compare((key, one, other), values[one], values[other])

    def _take(self, step: Rollout | Transfer, value_BKD: Tensor, rows: Sequence[int]) -> None:
        sums = self._sums.setdefault(step.output, _Sums())
        sums.count += len(value_BKD)
        if isinstance(step, Transfer):
            backbone, shown_BKD = self._backbone(step.target), value_BKD
        else:
            backbone = self._backbone(step.agent)
            shown_BKD = self.system.link(step.inner).apply_to(value_BKD)
            sums.raw_norms_K = _added(sums.raw_norms_K, value_BKD)
        sums.norms_K = _added(sums.norms_K, shown_BKD)
        near = nearest_embeddings if isinstance(step, Transfer) else nearest_outputs
        for h_KD, number in zip(value_BKD, rows, strict=True):
            if number < SAMPLES:
                sums.nearest[number] = near(backbone, h_KD, NEAREST)

    def _compare(self, key: tuple[str, int, int], one_BKD: Tensor, other_BKD: Tensor) -> None:
        width = min(one_BKD.shape[1], other_BKD.shape[1])
        cosine_BK = torch.nn.functional.cosine_similarity(
            one_BKD[:, :width].float(), other_BKD[:, :width].float(), dim=-1
        )
        total, count = self._pairs.get(key, (0.0, 0))
        self._pairs[key] = (total + float(cosine_BK.sum()), count + cosine_BK.numel())

    def record(self, *, batches: int) -> RunRecord:
        """All that was taken in."""
        steps = self.plan.steps
        agent_backbones = {a.backbone: self._backbone(a.name) for a in self.plan.graph.agents}
        return RunRecord(
            plan=self.plan,
            samples=self.samples,
            turns=[self._times(index, step) for index, step in enumerate(steps)],
            readings=[
                self._reading(step)
                for step in steps
                if isinstance(step, Rollout | Transfer) and step.output in self._sums
            ],
            cosines=self._cosines(),
            batches=batches,
            devices={
                key: f"{one.device}, {str(one.dtype).removeprefix('torch.')}"
                for key, one in agent_backbones.items()
            },
        )

    def _times(self, index: int, step: Step) -> StepTimes:
        """A rollout that read no prompt was part of the batch of one before it."""
        within = None
        if isinstance(step, Rollout) and step.latent_steps and not self._prompts[index]:
            before = [
                other.output
                for i, other in enumerate(self.plan.steps[:index])
                if isinstance(other, Rollout)
                and (other.round, other.group) == (step.round, step.group)
                and self._prompts[i]
                and self._backbone(other.agent) is self._backbone(step.agent)
            ]
            within = before[-1] if before else None
        return StepTimes(
            step.round,
            step.agent,
            step.op,
            step.output,
            self._steps[index],
            self._prompts[index],
            within,
        )

    def _backbone(self, agent: str) -> LoadedBackbone:
        return self.system.backbone_of(agent)

    def _reading(self, step: Rollout | Transfer) -> LatentReading:
        sums = self._sums[step.output]
        agent = step.target if isinstance(step, Transfer) else step.agent
        return LatentReading(
            name=step.output,
            round=step.round,
            agent=agent,
            norms=_mean(sums.norms_K, sums.count) or [],
            embedding_norm=self._embedding_norm(agent),
            raw_norms=_mean(sums.raw_norms_K, sums.count),
            nearest=[sums.nearest.get(number, []) for number in range(len(self.samples))],
        )

    def _embedding_norm(self, agent: str) -> float:
        backbone = self._backbone(agent)
        if id(backbone) not in self._embedding_norms:
            self._embedding_norms[id(backbone)] = float(embedding_norm(backbone))
        return self._embedding_norms[id(backbone)]

    def _cosines(self) -> dict[str, list[list[float | None]]]:
        rounds = range(1, self.plan.graph.rounds + 1)
        found: dict[str, list[list[float | None]]] = {}
        for (key, one, other), (total, count) in self._pairs.items():
            grid = found.setdefault(key, [[None] * len(rounds) for _ in rounds])
            grid[one - 1][other - 1] = grid[other - 1][one - 1] = total / max(count, 1)
            grid[one - 1][one - 1] = grid[other - 1][other - 1] = 1.0
        return found


def _added(total_K: Tensor | None, value_BKD: Tensor) -> Tensor:
    """The total with a batch's norms added; an edit may have changed K from batch to batch."""
    norms_K = value_BKD.float().norm(dim=-1).sum(dim=0).double().cpu()
    if total_K is None:
        return norms_K
    width = min(len(total_K), len(norms_K))
    return total_K[:width] + norms_K[:width]


def _mean(total_K: Tensor | None, count: int) -> list[float] | None:
    if total_K is None:
        return None
    return [float(norm) for norm in total_K / count]
