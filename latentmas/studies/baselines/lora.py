"""One agent with a LoRA adapter of as many weights as the team's links have."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

from pydantic import Field

from latentmas.backbones import LoadedBackbone, lora_targets
from latentmas.io import load_link_weights
from latentmas.plan import Plan
from latentmas.runtime import System
from latentmas.spec import Graph, LoRA
from latentmas.studies.baselines import Baseline, BaselineJob, MadeBaseline, baselines
from latentmas.studies.baselines._base import load_alone
from latentmas.studies.baselines._prompt import single_agent
from latentmas.studies.baselines._training import effort_of
from latentmas.studies.baselines.single import SingleOptions
from latentmas.training import train

__all__ = ["LoRABaseline", "LoRAOptions"]


class LoRAOptions(SingleOptions):
    """Options of the LoRA baseline."""

    rank: int | None = Field(default=None, ge=1, le=2**16)
    """Rank. None: the one with which the adapter is closest to the team's links in size."""
    alpha: float | None = Field(default=None, gt=0)
    """Scale. None: twice the rank."""
    target_modules: tuple[str, ...] | None = None
    """Names of the linear layers to adapt. None: all of the decoder."""


@baselines.register("lora")
class LoRABaseline(Baseline):
    """The single agent, trained on the answers with a LoRA adapter, without any message."""

    summary = "the single agent with a LoRA adapter of as many weights as the team's links"
    trains = True
    packages = MappingProxyType({"peft": "peft"})
    Options = LoRAOptions

    def graph(self, plan: Plan) -> Graph:
        """One agent without edges."""
        asked = self.options
        return single_agent(
            plan, prompt=asked.prompt, system=asked.system, max_new_tokens=asked.max_new_tokens
        )

    def problems(self, plan: Plan) -> Iterator[str]:
        """Besides missing packages: a rank that cannot be matched."""
        yield from super().problems(plan)
        if self.options.rank is None and not plan.n_parameters:
            yield (
                "baseline 'lora' matches the team's links in size, and they have no weights; give "
                "the rank (rank=8)"
            )

    def make(self, job: BaselineJob) -> MadeBaseline:
        """Train the adapter, or continue."""
        system = load_alone(job.team, self.graph(job.team.plan))
        agent, matched = system.plan.output, _trainable(job.team)
        lora = self._lora(system.backbone_of(agent), matched)
        folder = job.folder / "training"
        if (folder / "team" / "latentmas.json").exists():
            load_link_weights(system, folder / "team")
        else:
            _train(job, system, lora, folder)
        trained = system.agent_adapters()[agent].n_parameters
        facts = {"rank": lora.r, "alpha": lora.alpha, "team_parameters": matched}
        return MadeBaseline(system, effort_of(job, system, trained), facts)

    def _lora(self, backbone: LoadedBackbone, matched: int) -> LoRA:
        asked = self.options
        rank = asked.rank
        if rank is None:
            each = sum(_widths(backbone, n) for n in lora_targets(backbone, asked.target_modules))
            rank = min(max(1, round(matched / each)), 2**16)
        alpha = 2 * rank if asked.alpha is None else asked.alpha
        return LoRA(r=rank, alpha=alpha, target_modules=asked.target_modules)


def _train(job: BaselineJob, system: System, lora: LoRA, folder: Any) -> None:
    """The outer loop with an adapter and no links, as teams are trained."""
    rate = job.budget.learning_rate
    own: dict[str, Any] = {} if rate is None else {"adapter_learning_rate": rate}
    train(
        system,
        job.train_rows,
        output_dir=folder,
        loops=["outer"],
        resume="auto",
        train_adapters=lora,
        train_links=False,
        max_steps=job.budget.max_steps,
        per_device_train_batch_size=job.budget.batch_size,
        seed=job.seed,
        answer_field=job.answer_field,
        progress=job.progress,
        **own,
    )


def _trainable(team: System) -> int:
    """Number of weights of the team's links, and of adapters that its agents have learned."""
    return sum(weight.numel() for weight in team.parameters())


def _widths(backbone: LoadedBackbone, name: str) -> int:
    """Input and output width of a layer: its adapter's number of weights per rank."""
    layer: Any = backbone.model.get_submodule(name)
    if hasattr(layer, "in_features"):
        return int(layer.in_features + layer.out_features)
    return int(sum(layer.weight.shape))
