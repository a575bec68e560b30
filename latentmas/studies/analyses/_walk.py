"""One differentiable walk over a plan, with a place at each message to push and to listen.

Shapes: `B` batch, `K` message rows, `D` width, `N` answer tokens of all rows, `V` vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from latentmas.backbones import LoadedBackbone
from latentmas.engine import StepInput, Team, answer_ids, executors
from latentmas.plan import Plan, Value
from latentmas.runtime import Interpreter, Sampling, System
from latentmas.training.losses.teacher_forcing import teacher_force

__all__ = ["Walked", "tangent_of", "tangents_pass", "walk"]

Push = Callable[[str, Tensor], Tensor | None]
"""Takes a message's name and message_BKD; returns its direction, or None for none."""


class Walked(NamedTuple):
    """What a walk brings."""

    messages: dict[str, Tensor]
    """Message by name, (B, K, D), as it arrives, with its tangent."""
    handles: dict[str, Tensor]
    """Zeros that were added to each message: their gradient is the message's."""
    logits_NV: Tensor
    """Logits of the answer tokens, questions one after another, with their tangent."""
    sizes: list[int]
    """Number of answer tokens of each question."""
    losses_B: Tensor
    """Mean cross-entropy of each question's answer."""


class _ThroughModules:
    """A team whose backbones run their own modules, which forward differentiation knows.

    Without gradients a backbone takes another way for prompts and single positions.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._own: dict[int, LoadedBackbone] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)

    def backbone_of(self, agent: str) -> LoadedBackbone:
        """The backbone of an agent, one object for all agents that share it."""
        backbone = self._system.backbone_of(agent)
        if id(backbone) not in self._own:
            own = copy.copy(backbone)
            own.step = own.run_modules  # type: ignore[method-assign]
            self._own[id(backbone)] = own
        return self._own[id(backbone)]


def walk(
    system: System,
    plan: Plan,
    rows: Sequence[Mapping[str, Any]],
    answers: Sequence[str],
    push: Push | None = None,
) -> Walked:
    """Let a team think and score the correct answers.

    Zeros are added to each message. They require gradients, so that there are gradients even where
    no link has weights; or they carry the direction in which the message is pushed.

    Args:
        system: the team.
        plan: its plan.
        rows: B samples.
        answers: their correct answers.
        push: gives the direction of a message; there are no gradients then. Call it within
            `tangents_pass`.
    """
    messages: dict[str, Tensor] = {}
    handles: dict[str, Tensor] = {}

    def edit(passing: Value, content: Any) -> Any:
        if not isinstance(content, Tensor):
            return content
        zeros = torch.zeros_like(content, requires_grad=push is None)
        handles[passing.name] = zeros
        direction = None if push is None else push(passing.name, content)
        if direction is not None:
            zeros = forward_ad.make_dual(zeros, direction)
        messages[passing.name] = content + zeros
        return messages[passing.name]

    def score(turn: StepInput) -> tuple[Tensor, Tensor, list[int]]:
        ids = [answer_ids(turn.backbone, answer) for answer in answers]
        taught = teacher_force(turn.backbone, turn.prompt, ids, scored_only=True)
        return turn.backbone.logits(taught.h_ND), taught.ids_N, [len(own) for own in ids]

    interpreter = Interpreter(
        team=system if push is None else cast("Team", _ThroughModules(system)),
        plan=plan,
        executor=executors.get("cached")(),
        sampling=Sampling(),
        edit=edit,
    )
    with torch.set_grad_enabled(push is None):
        logits_NV, ids_N, sizes = interpreter.walk(rows, finish=score).result
        losses_N = cross_entropy(_wide(logits_NV), ids_N, reduction="none")
        losses_B = torch.stack([own.mean() for own in losses_N.split(sizes)])
    return Walked(messages, handles, logits_NV, sizes, losses_B)


@contextmanager
def tangents_pass() -> Iterator[None]:
    """Context for walks with directions: attention in a form that forward differentiation knows."""
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        yield


def tangent_of(value: Tensor) -> Tensor | None:
    """The tangent of a value; None where no direction reaches it."""
    found: Tensor | None = forward_ad.unpack_dual(value).tangent
    return found


def _wide(logits_NV: Tensor) -> Tensor:
    half = logits_NV.dtype in (torch.bfloat16, torch.float16)
    return logits_NV.float() if half else logits_NV
