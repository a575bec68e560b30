"""What a plan will take, before anything is loaded: `Plan.explain` and `System.explain`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from latentmas.cost.counting import Ledger, Values
from latentmas.cost.explanation import Explanation
from latentmas.cost.hardware import SIZES, Hardware, find_hardware
from latentmas.cost.memory import Buffers, Memory
from latentmas.cost.order import obstacles
from latentmas.cost.roofline import FLOAT32, Model, weights_of
from latentmas.cost.standins import Applied, TeamStandIn, counted_team, estimated_team
from latentmas.cost.walk import Costs, value_sizes
from latentmas.engine import HOST_LIMIT, KEPT_SHARE, Executor, executors
from latentmas.errors import DataError, ExecutionError, LatentMASError, UnknownNameError
from latentmas.plan import Decode, Plan, PlanBackbone, TokenLimit, with_limits
from latentmas.spec import full_dtype

if TYPE_CHECKING:
    from latentmas.runtime import System

__all__ = ["explain_plan", "explain_samples"]

Samples = Sequence[Mapping[str, Any]]
COUNTED = "prompts as these samples and the backbones' tokenizers make them"


def explain_plan(
    plan: Plan,
    hardware: str | Hardware,
    *,
    batch: int,
    input_tokens: int | Mapping[str, int],
    max_new_tokens: TokenLimit,
    dtype: str | None,
    executor: str,
    characters_per_token: float,
) -> Explanation:
    """Estimate a run; arguments as `Plan.explain`."""
    _check(plan, batch, input_tokens, characters_per_token)
    machine, plan = find_hardware(hardware), with_limits(plan, max_new_tokens)
    models, notes = _models(plan, machine, dtype)
    kind, blind, known = _kind(executor), set[str](), plan
    while True:  # once more for each agent whose prompt needs a sample

        def parts(applied: Applied, known: Plan = known) -> tuple[TeamStandIn, Samples]:
            return estimated_team(known, applied, input_tokens, characters_per_token)

        try:
            found = _explained(known, parts, machine, models, kind, batch, blind)
            break
        except ExecutionError as error:
            if not isinstance(error.__cause__, DataError) or error.agent in blind:
                raise
            blind.add(str(error.agent))
            known = _without_prompts(plan, blind)
    left_out = _left_out(plan, kind, counted=False)
    return replace(found, basis=_basis(plan, input_tokens), notes=(*notes, *left_out))


def explain_samples(
    system: System,
    plan: Plan,
    samples: Samples,
    hardware: str | Hardware,
    *,
    max_new_tokens: TokenLimit,
    executor: Executor,
) -> Explanation:
    """The cost of one batch of these samples.

    Args:
        system: whose tokenizers, text sources and tools.
        plan: at the depth in question.
        samples: B mappings of sample fields.
        hardware: where.
        max_new_tokens: as `System.explain`.
        executor: one that keeps nothing counts as `cached`.

    Raises:
        DataError: the samples are empty, or a prompt cannot be rendered.
    """
    if not samples:
        raise DataError("explain takes at least one sample; Plan.explain needs none")
    machine, plan = find_hardware(hardware), with_limits(plan, max_new_tokens)
    agents = {agent.backbone: agent.name for agent in plan.graph.agents}
    dtypes = {
        key: str(system.backbone_of(agent).dtype).removeprefix("torch.")
        for key, agent in agents.items()
    }
    models, notes = _models(plan, machine, dtypes)
    kind = type(executor) if executor.keeps is not None else executors.get("cached")

    def parts(applied: Applied) -> tuple[TeamStandIn, Samples]:
        return counted_team(plan, applied, system), samples

    try:
        found = _explained(plan, parts, machine, models, kind, len(samples), set())
    except ExecutionError as error:
        raise error.__cause__ if isinstance(error.__cause__, LatentMASError) else error from None
    own = {name: one.n_parameters for name, one in system.agent_adapters().items()}
    notes += [f"{name}: its own adapter of {n:,} weights is not counted" for name, n in own.items()]
    return replace(found, notes=(*notes, *_left_out(plan, kind, counted=True)))


def _explained(
    plan: Plan,
    parts: Callable[[Applied], tuple[TeamStandIn, Samples]],
    machine: Hardware,
    models: Mapping[str, Model | None],
    kind: type[Executor],
    batch: int,
    blind: set[str],
) -> Explanation:
    """Walk over the plan with the parts of a team; notes are left out."""
    buffers = None
    if kind.keeps == "fixed":
        limit = int(machine.memory or 0) // KEPT_SHARE if kind.captures else HOST_LIMIT
        buffers = Buffers(limit, captures=kind.captures)
    memory = Memory(models, plan.n_parameters * FLOAT32, buffers, alone=kind.swaps)
    ledger = Ledger(Values(value_sizes(plan, models)))
    team, samples = parts(ledger.applied)
    ledger.values.times = batch // len(samples)  # an estimate's row stands for all of them
    rows = Costs(plan, machine, models, memory, ledger, blind).walk(team, kind, samples)
    known = [model for model in models.values() if model is not None]
    return Explanation(
        name=plan.graph.name,
        hardware=machine,
        batch=batch,
        executor=kind.name,
        basis=COUNTED,
        weights=_weights(known, kind) if len(known) == len(models) else None,
        links=memory.links,
        rows=rows,
        unknown=(*_uncounted(plan), *map(_needs_sample, sorted(blind))),
        obstacles=tuple(obstacles(plan, rows)),
    )


def _weights(models: Sequence[Model], kind: type[Executor]) -> int:
    """Bytes that all backbones take, or the largest where they take turns on the device."""
    if kind.swaps:
        return max(weights_of([model]) for model in models)
    return weights_of(models)


def _without_prompts(plan: Plan, blind: set[str]) -> Plan:
    """The plan, some of whose agents read next to nothing."""
    agents = tuple(
        agent.model_copy(update={"prompt": "?", "system": None}) if agent.name in blind else agent
        for agent in plan.graph.agents
    )
    return plan.model_copy(update={"graph": plan.graph.model_copy(update={"agents": agents})})


def _kind(name: str) -> type[Executor]:
    """The executor of that name.

    Raises:
        UnknownNameError: there is none of which estimates are made.
    """
    known = [n for n in executors.names() if executors.get(n).keeps is not None]
    if name not in known:
        raise UnknownNameError("executor for explain:", name, known)
    return executors.get(name)


MOVES = (
    "memory is that of the largest backbone alone, the least that suffices; the time to copy "
    "weights to the device is not counted"
)


def _basis(plan: Plan, input_tokens: int | Mapping[str, int]) -> str:
    if isinstance(input_tokens, int):
        fields = f"{input_tokens} tokens for each field"
    else:
        fields = ", ".join(f"{n} tokens for {name}" for name, n in input_tokens.items())
    last = plan.steps[-1]
    answer = last.max_new_tokens if isinstance(last, Decode) else 0
    return f"prompts estimated from their templates, {fields}; answers of {answer} tokens"


def _check(
    plan: Plan,
    batch: int,
    input_tokens: int | Mapping[str, int],
    characters_per_token: float,
) -> None:
    """Numbers in range, and a length for every field.

    Raises:
        LatentMASError: a number is too small.
        DataError: a field has no length.
    """
    lengths = {"": input_tokens} if isinstance(input_tokens, int) else dict(input_tokens)
    if batch < 1:
        raise LatentMASError(f"batch is {batch}; choose at least 1")
    if characters_per_token <= 0:
        raise LatentMASError(
            f"characters_per_token is {characters_per_token}; choose a number above 0"
        )
    for name, number in lengths.items():
        if number < 0:
            raise LatentMASError(f"input_tokens of {name or 'a field'} is {number}; give 0 or more")
    if isinstance(input_tokens, int):
        return
    for name in plan.graph.inputs:
        if name not in lengths:
            found = ", ".join(lengths) or "none"
            raise DataError(f"input_tokens lacks the field {name!r}; it has: {found}")


def _models(
    plan: Plan, hardware: Hardware, dtype: str | Mapping[str, str] | None
) -> tuple[dict[str, Model | None], list[str]]:
    """Backbones by key, and the assumptions made about them."""
    models: dict[str, Model | None] = {}
    notes: list[str] = []
    for key, planned in plan.backbones.items():
        wanted = dtype if isinstance(dtype, str | None) else dtype[key]
        chosen = full_dtype(wanted) or _own_dtype(planned)
        if chosen is None:
            chosen = "bfloat16"
            notes.append(f"{key}: its type is not known before it is loaded; taken as {chosen}")
        if chosen not in SIZES:
            raise LatentMASError(f"dtype is {chosen!r}; choose one of {', '.join(SIZES)}")
        hardware.peak(chosen)  # said now, not in the middle
        costs = planned.info.costs
        base = planned.spec.base.fingerprint
        models[key] = None if costs is None else Model(planned.info, costs, chosen, base)
        adapter = planned.info.adapter
        if adapter is not None and adapter.n_parameters is None:
            notes.append(f"{key}: the size of its adapter is not known, and is not counted")
    return models, notes


def _own_dtype(planned: PlanBackbone) -> str | None:
    if planned.spec.dtype != "auto":
        return planned.spec.dtype
    costs = planned.info.costs
    return costs.dtype if costs is not None and costs.dtype in SIZES else None


def _uncounted(plan: Plan) -> Iterator[str]:
    for planned in plan.backbones.values():
        if planned.info.costs is None:
            agents = ", ".join(planned.agents)
            yield (
                f"{planned.spec.source} ({planned.info.model_type}) has no counts of weights and "
                f"state, so {agents} cannot be costed; compile again where its configuration can "
                "be read, or pass facts=… with costs"
            )


def _needs_sample(agent: str) -> str:
    return (
        f"the prompt of {agent} cannot be rendered without a sample; "
        "system.explain(samples) counts it"
    )


def _left_out(plan: Plan, kind: type[Executor], *, counted: bool) -> Iterator[str]:
    if kind.swaps:
        yield f"{kind.name}: {MOVES}"
    if kind.copies:
        yield f"{kind.name}: a second copy of the decoders' weights is not counted"
    decoding = {turn.agent for turn in plan.turns() if isinstance(turn, Decode)}
    calling = [agent for agent in plan.graph.agents if agent.tools and agent.name in decoding]
    for agent in calling:
        yield f"{agent.name}: what tools answer, and their time, is not counted"
        if agent.tool_style == "chat" and not counted:
            yield f"{agent.name}: descriptions of tools in the prompt are not counted"
