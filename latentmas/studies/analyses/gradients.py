"""How much a message changes what comes after it, and how much the loss depends on it.

Shapes: `B` batch, `K` message rows, `D` width, `N` answer tokens, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentmas.plan import Transfer
from latentmas.runtime import System, load_beside
from latentmas.spec import Graph
from latentmas.studies.analyses import analyses
from latentmas.studies.analyses._base import Analysis, Curves, Finding, Material
from latentmas.studies.analyses._statistics import Mean, mean_of
from latentmas.studies.analyses._walk import Walked, tangent_of, tangents_pass, walk
from latentmas.studies.tabulate import Sheet

__all__ = ["Gradients"]

DIRECTIONS = 2
"""Number of random directions in which each message is pushed."""
LOGITS = "answer"
STEADY = 2.0
"""Ratio of gradient norms between two rounds within which they count as steady."""
NORMS = ("links", "edge", "round", "|dL/dm|", "|dL/dm| |m|", "n")
GAINS = ("links", "push on", "change of", "gain", "n")
NORM_NOTE = (
    "|dL/dm|: norm of the gradient of the answer's loss with respect to a message. |dL/dm| |m|: "
    "times the message's norm, so that the scale of messages does not count. Means over questions "
    "with 95 % intervals."
)
GAIN_NOTE = (
    "Gain: a message is pushed in random directions (Jacobian-vector products); relative change of "
    "a later message, or of the answer's logits, over relative change of the message. 1: as large "
    f"as the push. Root mean square over {DIRECTIONS} directions; means over questions with 95 % "
    "intervals."
)


@dataclass
class _Side:
    """What was measured of a team with one set of links."""

    name: str
    """`trained` or `untrained`, or `given`."""
    norms: dict[str, list[float]] = field(default_factory=dict)
    """Message → norm of its gradient, by question."""
    scaled: dict[str, list[float]] = field(default_factory=dict)
    """The same times the message's norm."""
    gains: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Message that is pushed and what changes → relative change, by question."""


@analyses.register("gradients")
class Gradients(Analysis):
    """Gradient norms and Jacobian-vector products through rounds and agents."""

    title = "Gradients through rounds and agents"
    summary = "Gradient norms and Jacobian-vector products of messages, through all rounds."

    @staticmethod
    def run(material: Material) -> Finding:
        """Measure the team, and the same team with untrained links if it has been trained."""
        steps = material.transfers
        sides = [_measure(name, system, material) for name, system in _systems(material).items()]
        return Finding(
            name="gradients",
            title=Gradients.title,
            verdict=[line for side in sides for line in _verdict(side, steps, material.seed)],
            sheets={
                "Gradient norms": Sheet(
                    NORMS, _norm_lines(sides, steps, material.seed), (NORM_NOTE,), words=3
                ),
                "Gains": Sheet(GAINS, _gain_lines(sides, material.seed), (GAIN_NOTE,), words=3),
            },
            curves=_curves(sides, steps),
            data={"sides": [_plain(side, material.seed) for side in sides]},
        )


def _systems(material: Material) -> dict[str, System]:
    """The team, and the control with the links of the start."""
    system = material.system
    trained = bool(system.history) and any(True for _ in system.parameters())
    if not trained:
        return {"given": system}
    return {
        "trained": system,
        "untrained": load_beside(system, Graph.from_spec(system.plan.graph)),
    }


def _measure(name: str, system: System, material: Material) -> _Side:
    side = _Side(name)
    for rows, answers in material.batches():
        _add_norms(side, system, material, rows, answers)
        for step in material.transfers:
            _add_gains(side, system, material, rows, answers, step.output)
    return side


def _add_norms(
    side: _Side,
    system: System,
    material: Material,
    rows: Sequence[Mapping[str, object]],
    answers: Sequence[str],
) -> None:
    """Gradients of each question's loss; rows of a batch do not depend on each other."""
    found = walk(system, material.plan, rows, answers)
    names = list(found.handles)
    grads = torch.autograd.grad(
        found.losses_B.sum(), [found.handles[name] for name in names], allow_unused=True
    )
    for name, grad in zip(names, grads, strict=True):
        message_BKD = found.messages[name].detach()
        norm_B = _norms(torch.zeros_like(message_BKD) if grad is None else grad)
        side.norms.setdefault(name, []).extend(norm_B.tolist())
        side.scaled.setdefault(name, []).extend((norm_B * _norms(message_BKD)).tolist())


def _add_gains(
    side: _Side,
    system: System,
    material: Material,
    rows: Sequence[Mapping[str, object]],
    answers: Sequence[str],
    pushed: str,
) -> None:
    """Push one message in random directions, and see what else changes."""
    squares: dict[str, Tensor] = {}
    for number in range(DIRECTIONS):
        generator = torch.Generator().manual_seed(material.seed * DIRECTIONS + number)

        def push(name: str, message_BKD: Tensor, g: torch.Generator = generator) -> Tensor | None:
            return random_direction(message_BKD, g) if name == pushed else None

        with tangents_pass():
            found = walk(system, material.plan, rows, answers, push)
            changes = _changes(found, pushed)
        for name, change_B in changes.items():
            squares[name] = squares.get(name, 0) + change_B.square() / DIRECTIONS
    for name, square_B in squares.items():
        side.gains.setdefault((pushed, name), []).extend(square_B.sqrt().tolist())


def _changes(found: Walked, pushed: str) -> dict[str, Tensor]:
    """Relative change of everything but what is pushed, by question."""
    changes = {
        name: _relative(tangent_of(message), message)
        for name, message in found.messages.items()
        if name != pushed
    }
    logits_NV = found.logits_NV - found.logits_NV.mean(dim=-1, keepdim=True)  # of no effect
    tangent_NV = tangent_of(logits_NV)
    if tangent_NV is None:
        tangent_NV = torch.zeros_like(logits_NV)
    parts = zip(tangent_NV.split(found.sizes), logits_NV.split(found.sizes), strict=True)
    own = [_relative(tangent[None], logits[None]) for tangent, logits in parts]
    return {**changes, LOGITS: torch.cat(own)}


def random_direction(message_BKD: Tensor, generator: torch.Generator) -> Tensor:
    """A direction for each question, as long as its message; rows that are not sent stay so."""
    noise_BKD = torch.randn(message_BKD.shape, generator=generator, dtype=torch.float64)
    plain_BKD = message_BKD.detach()
    noise_BKD = noise_BKD.to(plain_BKD) * plain_BKD.ne(0).any(dim=-1, keepdim=True)
    size_B = _norms(plain_BKD) / _norms(noise_BKD).clamp_min(1e-30)
    return noise_BKD * size_B[:, None, None].to(plain_BKD)


def _relative(tangent_BKD: Tensor | None, value_BKD: Tensor) -> Tensor:
    """Size of the tangent over that of the value, by question; 0 where nothing changes."""
    if tangent_BKD is None:
        return torch.zeros(len(value_BKD), dtype=torch.float64)
    return _norms(tangent_BKD) / _norms(value_BKD.detach()).clamp_min(1e-30)


def _norms(x_BKD: Tensor) -> Tensor:
    return x_BKD.detach().double().flatten(start_dim=1).norm(dim=-1).cpu()


# --- results ----------------------------------------------------------------------------------


def _norm_lines(
    sides: Sequence[_Side], steps: Sequence[Transfer], seed: int
) -> list[tuple[str, ...]]:
    return [
        (
            side.name,
            step.value.label,
            str(step.round),
            mean_of(side.norms[step.output], seed=seed).text(".3g"),
            mean_of(side.scaled[step.output], seed=seed).text(".3g"),
            str(len(side.norms[step.output])),
        )
        for side in sides
        for step in steps
    ]


def _gain_lines(sides: Sequence[_Side], seed: int) -> list[tuple[str, ...]]:
    return [
        (side.name, pushed, changed, mean_of(gains, seed=seed).text(".3g"), str(len(gains)))
        for side in sides
        for (pushed, changed), gains in side.gains.items()
        if any(gains)
    ]


def _verdict(side: _Side, steps: Sequence[Transfer], seed: int) -> Iterator[str]:
    """How gradients change from the last round of an edge to the first, and gains with them."""
    for edge in dict.fromkeys(step.value.label for step in steps):
        own = [step for step in steps if step.value.label == edge]
        first, last = own[0], own[-1]
        early, late = (mean_of(side.norms[step.output], seed=seed) for step in (first, last))
        gains = [mean_of(side.gains[step.output, LOGITS], seed=seed) for step in (first, last)]
        if len(own) < 2:
            yield (
                f"{side.name} links, {edge}: gradient norm {early.text('.3g')}, gain on the "
                f"answer's logits {gains[0].text('.3g')}, {early.n} questions."
            )
            continue
        yield (
            f"{side.name} links, {edge}: gradient norm {early.text('.3g')} in round {first.round} "
            f"and {late.text('.3g')} in round {last.round}, {early.n} questions: "
            f"{_compared(early, late)}. Gain on the answer's logits {gains[0].text('.3g')} and "
            f"{gains[1].text('.3g')}."
        )


def _compared(early: Mean, late: Mean) -> str:
    """The first round's gradient beside the last's, in words."""
    if not late.mean or not early.mean:
        return "one of them is zero"
    ratio = early.mean / late.mean
    told = f"the first round's is {ratio:.2g} times the last's"
    if 1 / STEADY <= ratio <= STEADY:
        return f"{told}, steady within a factor of {STEADY:g}"
    return f"{told}: it {'grows' if ratio > 1 else 'shrinks'} on its way back"


def _curves(sides: Sequence[_Side], steps: Sequence[Transfer]) -> list[Curves]:
    norms: dict[str, list[tuple[float, float]]] = {}
    gains: dict[str, list[tuple[float, float]]] = {}
    for side in sides:
        for step in steps:
            name = f"{side.name}, {step.value.label}"
            own = side.norms[step.output]
            norms.setdefault(name, []).append((step.round, sum(own) / len(own)))
            reach = side.gains[step.output, LOGITS]
            gains.setdefault(name, []).append((step.round, sum(reach) / len(reach)))
    return [
        Curves("Gradient norm at each message", norms, "|dL/dm|", log=True),
        Curves("Gain of a push on the answer", gains, "relative change", log=True),
    ]


def _plain(side: _Side, seed: int) -> dict[str, object]:
    return {
        "links": side.name,
        "gradient_norms": {k: mean_of(v, seed=seed).to_dict() for k, v in side.norms.items()},
        "scaled_norms": {k: mean_of(v, seed=seed).to_dict() for k, v in side.scaled.items()},
        "gains": [
            {"pushed": pushed, "changed": changed} | mean_of(gains, seed=seed).to_dict()
            for (pushed, changed), gains in side.gains.items()
        ],
    }
