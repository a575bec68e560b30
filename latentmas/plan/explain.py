"""Estimates the cost of a plan before anything is loaded: `Plan.explain`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from latentmas.errors import DataError, LatentMASError, UnknownNameError
from latentmas.plan.backbone import PlanBackbone
from latentmas.plan.buffers import KEPT_SHARE, Buffers
from latentmas.plan.cost import FLOAT32, Model
from latentmas.plan.costing import Costing
from latentmas.plan.explanation import Explanation, StepCost
from latentmas.plan.hardware import SIZES, Hardware, find_hardware
from latentmas.plan.limits import TokenLimit, with_limits
from latentmas.plan.memory import Memory
from latentmas.plan.plan import Plan
from latentmas.plan.reading import WORTHWHILE, Estimate, Reading, Turn
from latentmas.plan.steps import Decode, Transfer
from latentmas.spec import full_dtype

__all__ = ["EXPLAINED", "explain_plan"]

NOTICEABLE = 0.2
"""Minimum share of a prompt that is reread before a remark is made."""


def explain_plan(
    plan: Plan,
    hardware: str | Hardware,
    *,
    batch: int,
    input_tokens: int | Mapping[str, int],
    max_new_tokens: TokenLimit,
    dtype: str | Mapping[str, str] | None,
    executor: str = "cached",
    characters_per_token: float = 4.0,
    counted: Reading | None = None,
) -> Explanation:
    """Estimate a run; same arguments as `Plan.explain`.

    Args:
        plan: Plan to estimate.
        hardware: Machine that runs it.
        batch: Number of samples that run together.
        input_tokens: Number of tokens of sample fields.
        max_new_tokens: Maximum number of tokens for all agents, or by agent. None: their own
        limits, or else the default.
        dtype: Data type of the weights: one, or by backbone key.
        executor: Executor whose memory to estimate.
        characters_per_token: Number of characters per token in templates.
        counted: Exact lengths that replace estimated ones.
    """
    machine = find_hardware(hardware)
    _check(plan, batch, input_tokens, characters_per_token)
    plan = with_limits(plan, max_new_tokens)
    models, notes = _models(plan, machine, dtype)
    estimate = Estimate(
        plan,
        input_tokens=input_tokens,
        characters_per_token=characters_per_token,
    )
    reading = counted or estimate
    if executor not in EXPLAINED:
        raise UnknownNameError("executor for explain:", executor, EXPLAINED)
    alone = executor == OFFLOAD
    links = plan.n_parameters * FLOAT32
    memory = Memory(models, links, _buffers(executor, machine), alone=alone)
    costing = Costing(plan, reading, machine, batch, models, memory)
    rows = costing.rows()
    known = [model.weights for model in models.values() if model is not None]
    return Explanation(
        name=plan.graph.name,
        hardware=machine,
        batch=batch,
        executor=executor,
        basis=_basis(plan, input_tokens) if counted is None else COUNTED,
        weights=(max if alone else sum)(known) if len(known) == len(models) else None,
        links=links,
        rows=rows,
        unknown=tuple(_unknown(plan, reading)),
        obstacles=tuple(_obstacles(plan, estimate, rows)),
        notes=(*notes, *([COPIES] if alone else []), *_left_out(plan, counted is not None)),
    )


FIXED, OFFLOAD = ("static", "cuda_graph"), "offload"
"""Executors with buffers of fixed size, and the one that loads one backbone at a time."""
EXPLAINED = ("cached", *FIXED, OFFLOAD)
COPIES = (
    "offload: memory is that of the largest backbone alone, the minimum required; the time to "
    "copy weights to the device is not counted"
)


def _buffers(executor: str, machine: Hardware) -> Buffers | None:
    """The buffers in which an executor keeps states. None: states grow."""
    if executor not in FIXED:
        return None
    return Buffers(int(machine.memory or 0) // KEPT_SHARE if executor == "cuda_graph" else 0)


COUNTED = "prompt lengths counted with these samples and the backbones' tokenizers"


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
    """Check that numbers are in range and that every field has a length.

    Raises:
        LatentMASError: A number is too small.
        DataError: A field has no length.
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
    """Costs of backbones by key; assumptions are added to the notes."""
    models: dict[str, Model | None] = {}
    notes: list[str] = []
    for key, planned in plan.backbones.items():
        wanted = dtype if isinstance(dtype, str | None) else dtype[key]
        chosen = full_dtype(wanted) or _own_dtype(planned)
        if chosen is None:
            chosen = "bfloat16"
            notes.append(
                f"{key}: its dtype is not known before it is loaded; assumed to be {chosen}"
            )
        if chosen not in SIZES:
            raise LatentMASError(f"dtype is {chosen!r}; choose one of {', '.join(SIZES)}")
        hardware.peak(chosen)  # raises early if the dtype is unknown
        costs = planned.info.costs
        models[key] = None if costs is None else Model(planned.info, costs, chosen)
    return models, notes


def _own_dtype(planned: PlanBackbone) -> str | None:
    if planned.spec.dtype != "auto":
        return planned.spec.dtype
    costs = planned.info.costs
    return costs.dtype if costs is not None and costs.dtype in SIZES else None


def _unknown(plan: Plan, reading: Reading) -> Iterator[str]:
    for planned in plan.backbones.values():
        if planned.info.costs is None:
            agents = ", ".join(planned.agents)
            yield (
                f"{planned.spec.source} ({planned.info.model_type}) has no counts of weights and "
                f"state, so {agents} cannot be costed; compile again where its configuration can "
                "be read, or pass facts=… with costs"
            )
    blind = {turn.agent for turn in plan.turns() if reading.positions(turn) is None}
    for name in sorted(blind):
        yield (
            f"the prompt of {name} cannot be rendered without a sample; "
            "system.explain(samples) counts it"
        )


def _obstacles(plan: Plan, estimate: Estimate, rows: Sequence[StepCost]) -> Iterator[str]:
    """Remarks on agents that reread text: changed text precedes it, or they run in a batch."""
    last = {agent: row for row in rows if row.op != "transfer" for agent in row.agents}
    for agent, row in last.items():
        if not row.positions or (row.reread or 0) < max(WORTHWHILE, NOTICEABLE * row.positions):
            continue
        if len(row.agents) > 1:
            yield f"{agent} runs in one batch with others; such a batch keeps nothing across rounds"
            continue
        turn = plan.steps[row.index]
        slot, fields = (None, []) if isinstance(turn, Transfer) else _order(estimate, turn)
        if slot is None:
            continue
        what = " and ".join(f"`{name}`" for name in fields) or "the text after it"
        best = (row.reused or 0) + (row.reread or 0)
        yield (
            f"{agent} reads its slot `{slot}` before {what}: {row.reused} of about "
            f"{row.positions} positions can be reused across rounds; put {what} first to reuse "
            f"about {best}"
        )


def _order(estimate: Estimate, turn: Turn) -> tuple[str | None, list[str]]:
    """The first slot of a prompt, and the sample fields after it."""
    parts = estimate.parts(turn) or []
    slots = [i for i, part in enumerate(parts) if part.slot]
    if not slots:
        return None, []
    fields = [p.name for p in parts[slots[0] :] if p.kind == "field" and not p.slot]
    return parts[slots[0]].slot, list(dict.fromkeys(fields))


def _left_out(plan: Plan, counted: bool) -> Iterator[str]:
    decoding = {turn.agent for turn in plan.turns() if isinstance(turn, Decode)}
    calling = [agent for agent in plan.graph.agents if agent.tools and agent.name in decoding]
    for agent in calling:
        yield f"{agent.name}: the results of tools, and their time, are not counted"
        if agent.tool_style == "chat" and not counted:
            yield f"{agent.name}: descriptions of tools in the prompt are not counted"
