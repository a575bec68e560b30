"""Where agents run, and which loaded backbones serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, get_args

import torch
from torch import nn

from latentmas.backbones import LoadedBackbone, adopt_models, load_backbone
from latentmas.errors import LatentMASError, UnknownNameError, closest
from latentmas.plan import Plan, PlanBackbone
from latentmas.spec import DType, Graph, full_dtype

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = [
    "check_dtype",
    "check_plan",
    "check_system",
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
                old = next(_same_spec(planned, agent, reuse or {}), None)
                placed[agent] = "cpu" if old is None else str(old.device)
    found = {name: _available(name) for name in sorted({str(name) for name in placed.values()})}
    return {name: found[str(placed[name])] for name in names}


def _available(name: str) -> str:
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
) -> dict[str, LoadedBackbone]:
    """The backbone of each agent; one is loaded once for each device it is needed on.

    Args:
        plan: Plan whose backbones are loaded.
        placed: Agent → device, as `place_agents` returns it.
        dtype: Data type that replaces those declared by the backbones; None also takes reused ones
            as they are.
        reuse: Loaded backbones of another system, by agent, which are shared where they are equal.
        commits: Commits on the Hub, by key, which replace the declared revisions.
    """
    agent_backbones, loaded = dict[str, LoadedBackbone](), dict[tuple[str, str], LoadedBackbone]()
    for key, planned in plan.backbones.items():
        commit = (commits or {}).get(key)
        for agent in planned.agents:
            where = placed[agent]
            place = planned.spec.fingerprint, where
            fitting = (
                old
                for old in _same_spec(planned, agent, reuse or {})
                if str(old.device) == where
                and (dtype is None or str(old.dtype) == f"torch.{dtype}")
                and commit in (None, old.commit)
            )
            known = loaded.get(place) or next(fitting, None)
            if known is None:
                known = load_backbone(planned, device=where, dtype=dtype, commit=commit)
                loaded[place] = known
            agent_backbones[agent] = known
    return agent_backbones


def _same_spec(
    planned: PlanBackbone, agent: str, reuse: Mapping[str, LoadedBackbone]
) -> Iterator[LoadedBackbone]:
    """Loaded backbones of the same declaration, the agent's own first."""
    own = [reuse[agent]] if agent in reuse else []
    for old in [*own, *reuse.values()]:
        if old.planned.spec.fingerprint == planned.spec.fingerprint:
            yield old


def move_backbones(
    backbones: Iterable[LoadedBackbone], move: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Move or convert the weights of backbones, each once.

    Raises:
        LatentMASError: the type of quantised weights would change; nothing has been moved then.
    """
    distinct = list({id(backbone): backbone for backbone in backbones}.values())
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
