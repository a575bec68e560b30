"""Where agents run, and which loaded backbones serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import torch
from torch import nn

from latentmas.backbones import LoadedBackbone, Split, adopt_models, load_backbone, with_adapter
from latentmas.errors import LatentMASError, UnknownNameError, closest
from latentmas.plan import Plan, PlanBackbone
from latentmas.spec import DType, Graph, full_dtype

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = [
    "adapter_key",
    "check_dtype",
    "check_plan",
    "check_system",
    "each_model",
    "find_device",
    "link_key",
    "load_backbones",
    "move_backbones",
    "place_agents",
    "place_links",
    "reusable_backbones",
]


def check_plan(plan: object) -> None:
    """Whether it is a plan.

    Raises:
        TypeError: it is something else; a graph is told to be compiled.
    """
    if not isinstance(plan, Plan):
        found = type(plan).__name__
        how = "; compile it first: graph.compile().load()" if isinstance(plan, Graph) else ""
        raise TypeError(f"System.load takes a Plan, and was given a {found}{how}")


def check_system(name: str, system: System) -> System:
    """The system itself.

    Raises:
        TypeError: it is something else.
    """
    from latentmas.runtime.system import System

    if not isinstance(system, System):
        found = type(system).__name__
        raise TypeError(f"{name} is a {found}; give a loaded System, as plan.load() makes it")
    return system


def reusable_backbones(
    plan: Plan, reuse: System | None, models: Mapping[str, object]
) -> dict[str, LoadedBackbone]:
    """Loaded backbones that may serve a plan: another system's by agent, and models handed over.

    Raises:
        TypeError: `reuse` is not a system, or a model is not a pair of a model and a tokenizer.
        WeightsError: a model is unsuitable.
    """
    shared = {} if reuse is None else check_system("reuse", reuse).agent_backbones
    return shared | adopt_models(plan.backbones, models)


def place_agents(
    plan: Plan,
    device: str | Mapping[str, str] | None,
    reuse: Mapping[str, LoadedBackbone] | None = None,
) -> dict[str, str]:
    """The device of each agent, with its index: `"cuda"` becomes `"cuda:0"`.

    Args:
        plan: whose agents.
        device: for all agents, or by agent. With None, and for agents left out, the reused
            backbone stays where it is; what must be loaded goes to the CPU.
        reuse: loaded backbones of another system, by agent.

    Raises:
        LatentMASError: a device is not there, or an agent named does not exist.
    """
    names = [agent.name for agent in plan.graph.agents]
    given = device if isinstance(device, Mapping) else {}
    for name in given:
        if name not in names:
            guess = closest(name, names)
            hint = f"did you mean {guess!r}?" if guess else f"there are: {', '.join(names)}"
            raise LatentMASError(f"device is given for {name!r}, which is not an agent; {hint}")
    placed = dict(given) if isinstance(device, Mapping) else dict.fromkeys(names, device)
    for planned in plan.backbones.values():
        for agent in planned.agents:
            if placed.get(agent) is None:
                same = _same_spec(planned, agent, reuse or {})
                old = next(same, None) or next(
                    _same_spec(_base_of(planned), agent, reuse or {}), None
                )
                placed[agent] = "cpu" if old is None else str(old.device)
    found = {name: find_device(name) for name in sorted({str(name) for name in placed.values()})}
    return {name: found[str(placed[name])] for name in names}


def find_device(name: str) -> str:
    """The device's full name, index included.

    Raises:
        LatentMASError: it is not there, or keeps no values.
    """
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise LatentMASError("device 'meta' keeps no values; use device='cpu', or a GPU")
        return str(torch.empty(0, device=device).device)
    except (RuntimeError, AssertionError) as error:
        count = torch.cuda.device_count()
        found = f"{count} CUDA device{'s' if count != 1 else ''}"
        raise LatentMASError(
            f"device {name!r} is not available ({found}); use device='cpu'"
        ) from error


def check_dtype(dtype: str | torch.dtype | None) -> str | None:
    """The full name of a type that backbones can have; `"bf16"` and the like will do.

    Raises:
        UnknownNameError: the type is unknown.
    """
    full, known = full_dtype(dtype), get_args(DType)
    if full is not None and full not in known:
        raise UnknownNameError("dtype", full, known)
    return None if full is None else str(full)


def load_backbones(
    plan: Plan,
    placed: Mapping[str, str],
    *,
    dtype: str | None = None,
    reuse: Mapping[str, LoadedBackbone] | None = None,
    commits: Mapping[str, str] | None = None,
    splits: Mapping[str, Split] | None = None,
) -> dict[str, LoadedBackbone]:
    """The backbone of each agent; one is loaded once for each device it is needed on.

    Args:
        plan: Plan whose backbones are loaded.
        placed: Agent → device, as `place_agents` returns it.
        dtype: Data type that replaces those declared by the backbones; None also takes reused ones
            as they are.
        reuse: Loaded backbones of another system, by agent, which are shared where they are equal.
        commits: Commits on the Hub, by key, which replace the declared revisions; those of adapters
            by `adapter_key`.
        splits: How to put backbones on several devices, by agent.
    """
    loader = _Loader(plan, dtype, reuse or {}, commits or {}, splits or {})
    return {
        agent: loader.backbone(key, agent, placed[agent])
        for key, planned in plan.backbones.items()
        for agent in planned.agents
    }


@dataclass
class _Loader:
    """Loads each model once on each device; adapters are put over models that are loaded."""

    plan: Plan
    dtype: str | None
    reuse: Mapping[str, LoadedBackbone]
    commits: Mapping[str, str]
    splits: Mapping[str, Split]
    loaded: dict[tuple[str, str], LoadedBackbone] = field(default_factory=dict)

    def backbone(self, key: str, agent: str, where: str) -> LoadedBackbone:
        """The backbone of an agent on a device."""
        planned, commit = self.plan.backbones[key], self.commits.get(key)
        if planned.spec.adapter is None:
            return self._model(planned, agent, where, commit)
        of_adapter = self.commits.get(adapter_key(key))
        place = planned.spec.fingerprint, self._where(agent, where)
        known = self.loaded.get(place)
        for old in self._fitting(planned, agent, where, commit):
            if known is None and of_adapter in (None, old.adapter_commit):
                known = old
        if known is None:
            base = self._model(self._without_adapter(planned), agent, where, commit)
            known = self.loaded[place] = with_adapter(base, planned, commit=of_adapter)
        return known

    def _model(
        self, planned: PlanBackbone, agent: str, where: str, commit: str | None
    ) -> LoadedBackbone:
        place = planned.spec.fingerprint, self._where(agent, where)
        known = self.loaded.get(place) or next(self._fitting(planned, agent, where, commit), None)
        if known is None:
            known = self.loaded[place] = load_backbone(
                planned,
                device=where,
                dtype=self.dtype,
                commit=commit,
                split=self.splits.get(agent),
            )
        return known

    def _where(self, agent: str, device: str) -> str:
        split = self.splits.get(agent)
        return device if split is None else split.key

    def _fitting(
        self, planned: PlanBackbone, agent: str, where: str, commit: str | None
    ) -> Iterator[LoadedBackbone]:
        """Loaded backbones of the other system that serve as they are."""
        for old in _same_spec(planned, agent, self.reuse):
            same_type = self.dtype is None or str(old.dtype) == f"torch.{self.dtype}"
            there = _is_there(old, where, self.splits.get(agent))
            if there and same_type and commit in (None, old.commit):
                yield old

    def _without_adapter(self, planned: PlanBackbone) -> PlanBackbone:
        """The plan's own backbone without the adapter, or one that no agent runs on."""
        base = planned.spec.base
        own = next((one for one in self.plan.backbones.values() if one.spec == base), None)
        return own or _base_of(planned)


def _base_of(planned: PlanBackbone) -> PlanBackbone:
    info = planned.info.model_copy(update={"adapter": None})
    return planned.model_copy(update={"spec": planned.spec.base, "info": info, "agents": ()})


def adapter_key(key: str) -> str:
    """Key of an adapter's commit among those of backbones."""
    return f"{key}/adapter"


def each_model(agent_backbones: Mapping[str, LoadedBackbone]) -> list[LoadedBackbone]:
    """Every loaded backbone once, and the models below their adapters."""
    found = {id(one): one for one in agent_backbones.values()}
    found |= {id(one.base): one.base for one in agent_backbones.values() if one.base is not None}
    return list(found.values())


def _is_there(old: LoadedBackbone, where: str, split: Split | None) -> bool:
    """Whether a loaded backbone is where it is wanted; one that is split may serve as it is."""
    if split is None:
        return str(old.device) == where
    return old.split is not None and old.split.key == split.key


def _same_spec(
    planned: PlanBackbone, agent: str, reuse: Mapping[str, LoadedBackbone]
) -> Iterator[LoadedBackbone]:
    """Loaded backbones of the same declaration, the agent's own first.

    What an agent has learned itself is not among them: it belongs to its own system.
    """
    own = {agent: reuse[agent]} if agent in reuse else {}
    for old in [*own.values(), *each_model(reuse)]:
        if not old.learned and old.planned.spec.fingerprint == planned.spec.fingerprint:
            yield old


def move_backbones(
    agent_backbones: Mapping[str, LoadedBackbone], move: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Move or convert the weights of all agents' backbones.

    Raises:
        LatentMASError: the type of quantised weights would change; nothing has been moved then.
    """
    distinct = each_model(agent_backbones)
    for backbone in distinct:
        if backbone.quantized:
            sample = torch.zeros(1, dtype=backbone.dtype, device=backbone.device)
            wanted = move(sample).dtype
            if wanted != sample.dtype:
                raise LatentMASError(
                    f"backbone {backbone.planned.spec.source!r} has quantised weights, whose type "
                    f"{sample.dtype} cannot become {wanted}; declare the type that you need with "
                    "Backbone(dtype=…), or load without quantization"
                )
    for backbone in distinct:
        backbone.model._apply(move)
        backbone.workspace.clear()


def link_key(id: str) -> str:
    """A link id as a key of `nn.ModuleDict`, which refuses dots; names cannot hold a slash."""
    return id.replace(".", "/")


def place_links(
    plan: Plan, links: nn.ModuleDict, agent_backbones: Mapping[str, LoadedBackbone]
) -> None:
    """Put each link where its first user's backbone is."""
    for planned in plan.links:
        sender, _ = plan.ends_of(planned)
        links[link_key(planned.id)].to(agent_backbones[sender].device)
