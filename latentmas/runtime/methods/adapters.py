"""LoRA adapters that single agents of a team learn, beside its links."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from latentmas.atomic import check_writable, write_text_atomically
from latentmas.backbones import with_lora
from latentmas.errors import LatentMASError
from latentmas.runtime.loading.init_weights import attach_links
from latentmas.spec import LoRA

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["Adapters", "AgentAdapter", "share_adapters"]


class AgentAdapter(nn.Module):
    """The weights of one agent's LoRA adapter.

    They are the same parameters that the layers of the agent's backbone apply; here they are
    registered, so that a system's `parameters()` and `state_dict()` hold them.
    """

    def __init__(self, lora: LoRA, weights: Mapping[str, nn.Parameter]) -> None:
        """Register the weights of a backbone's view.

        Args:
            lora: Description of the adapter.
            weights: Weights by their names in PEFT's files, without the prefix.
        """
        super().__init__()
        self.lora = lora
        """Description of the adapter."""
        for name, weight in weights.items():
            self.register_parameter(name.replace(".", "/"), weight)

    def weights(self) -> dict[str, nn.Parameter]:
        """Weights by their names in PEFT's files, without the prefix."""
        return {name.replace("/", "."): weight for name, weight in self.named_parameters()}

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.parameters())


class Adapters:
    """Methods of `System` for the adapters of single agents."""

    adapters: nn.ModuleDict

    def add_adapter(
        self, agent: str, lora: LoRA | Mapping[str, Any] | None = None, *, seed: int = 0
    ) -> AgentAdapter:
        """Give an agent a LoRA adapter of its own, which changes nothing until it has learned.

        The agent then runs on a view of its backbone: the base weights stay one copy for all
        agents. An adapter that the backbone declares stays as it is, below the new one.

        Args:
            agent: Name of the agent.
            lora: Description of the adapter; None uses the defaults.
            seed: Random seed of its weights.

        Returns:
            The adapter; the one that is there already if it has the same description.

        Raises:
            UnknownNameError: The team has no such agent.
            LatentMASError: The agent has an adapter of another description.
            WeightsError: A target module does not exist, or peft is not installed.
        """
        system, told = self._team, LoRA.read(lora, "lora")
        backbone = system.backbone_of(agent)
        if (known := self.adapter_of(agent)) is not None:
            if known.lora != told:
                raise LatentMASError(
                    f"agent {agent!r} has an adapter already ({known.lora}), and another one is "
                    f"described ({told}); give the same description, or load the team again"
                )
            return known
        view, weights = with_lora(
            backbone,
            r=told.r,
            alpha=told.alpha,
            target_modules=told.target_modules,
            rslora=told.rslora,
            seed=seed,
        )
        adapter = AgentAdapter(told, weights)
        _take(system, agent, adapter, view)
        return adapter

    def adapter_of(self, agent: str) -> AgentAdapter | None:
        """The agent's own adapter; None if it has none."""
        modules: dict[str, nn.Module] = dict(self.adapters.items())
        return cast("AgentAdapter | None", modules.get(_key(agent)))

    def agent_adapters(self) -> dict[str, AgentAdapter]:
        """The adapters of all agents that have one of their own, by agent."""
        found = {one.name: self.adapter_of(one.name) for one in self._team.plan.graph.agents}
        return {agent: adapter for agent, adapter in found.items() if adapter is not None}

    def adapter_state(self) -> dict[str, Tensor]:
        """Weights of all agents' adapters by `agent.weight`, as they are written to files."""
        return {
            f"{agent}.{name}": weight.detach()
            for agent, adapter in self.agent_adapters().items()
            for name, weight in adapter.weights().items()
        }

    def save_adapter(self, agent: str, folder: str | Path) -> Path:
        """Write an agent's own adapter as a folder that PEFT, and `Backbone(adapter=…)`, can load.

        Args:
            agent: Name of the agent.
            folder: Destination, which must not be the folder of a saved team.

        Raises:
            LatentMASError: The agent has no adapter of its own, or one on top of an adapter that
                its backbone declares; or the folder is that of a team or a model.
            DataError: The folder cannot be written.
        """
        from latentmas.io import save_tensors

        system, folder, adapter = self._team, Path(folder), self.adapter_of(agent)
        backbone = system.backbone_of(agent)
        if adapter is None:
            there = ", ".join(self.agent_adapters()) or "none"
            raise LatentMASError(f"agent {agent!r} has no adapter of its own; with one: {there}")
        if backbone.planned.spec.adapter is not None:
            raise LatentMASError(
                f"agent {agent!r} learned on top of {backbone.planned.spec.adapter!r}, without "
                "which its own adapter is of no use; save the team, or train on the model itself"
            )
        if (folder / "latentmas.json").exists() or (folder / "config.json").exists():
            raise LatentMASError(
                f"{str(folder)!r} holds a team or a model, which would then be taken for an "
                "adapter; choose another folder"
            )
        state = {
            f"base_model.model.{name}": weight.detach().cpu().contiguous()
            for name, weight in adapter.weights().items()
        }
        check_writable(folder / "adapter_config.json")
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(state, folder / "adapter_model.safetensors", {"format": "pt"})
        told = _peft_config(adapter, backbone.planned.spec.source, backbone.planned.spec.revision)
        text = json.dumps(told, indent=2) + "\n"
        return write_text_atomically(folder / "adapter_config.json", text).parent

    @property
    def _team(self) -> System:
        return cast("System", self)


def share_adapters(source: System, target: System) -> None:
    """Let agents of the same name and backbone keep what they have learned in another team.

    Args:
        source: Team whose agents have adapters.
        target: Team that runs on the same loaded backbones.
    """
    names = {agent.name for agent in target.plan.graph.agents}
    for agent, adapter in source.agent_adapters().items():
        if agent in names:
            mine, theirs = target.backbone_of(agent), source.backbone_of(agent)
            if mine.planned.spec == theirs.planned.spec:
                _take(target, agent, adapter, theirs)


def _take(system: System, agent: str, adapter: AgentAdapter, view: Any) -> None:
    system.adapters[_key(agent)] = adapter
    system.agent_backbones[agent] = view
    links = {id: system.link(id) for id in system.link_ids()}
    attach_links(system.plan, links, system.agent_backbones)


def _key(agent: str) -> str:
    """Key of `nn.ModuleDict`, which refuses names of its own methods."""
    return f"lora/{agent}"


def _peft_config(adapter: AgentAdapter, source: str, revision: str | None) -> dict[str, Any]:
    lora = adapter.lora
    modules = {name.rpartition(".lora_")[0] for name in adapter.weights()}
    targets = lora.target_modules or sorted({name.rpartition(".")[2] for name in modules})
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source,
        "revision": revision,
        "inference_mode": True,
        "r": lora.r,
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "use_rslora": lora.rslora,
        "target_modules": list(targets),
        "bias": "none",
        "lora_dropout": 0.0,
    }
