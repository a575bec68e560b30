"""What a training log tells beside the loss: links, messages, latents, stability.

Shapes: `B` batch, `K` latent steps, `D` width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentmas.engine import executors
from latentmas.links import Link
from latentmas.plan import LinkPlan, Plan, Rollout, Value
from latentmas.redact import get_logger
from latentmas.runtime import Interpreter, Sampling, StepInput, System
from latentmas.training.data import Row

__all__ = ["Telemetry", "row_cosine", "stability"]

log = get_logger("latentmas.training")

COLLAPSED = 0.95
"""Mean cosine above which messages are taken not to depend on the input."""
PATIENCE = 3
"""Watched batches in a row after which that is warned of."""


class Telemetry:
    """Gathers the numbers of one optimizer step.

    `grad_norm/LINK`, `weight_norm/LINK`, `residual_ratio/LINK` (norm of the learnt branch over the
    residual's), `message_grad/MESSAGE` (|dL/dmessage|), `message_norm/MESSAGE` (mean row norm over
    the receiver's mean embedding norm), `message_cosine/MESSAGE` (mean cosine between the messages
    of different rows of a batch), `latent_norm/AGENT` (as `message_norm`, of an agent's inputs;
    of agents that share an inner link, `latent_norm/ONE+OTHER`, of the one that used it last).

    Messages whose cosine stays near 1 do not depend on the input; the first such is warned of.
    """

    def __init__(self, system: System) -> None:
        self.system, self.plan = system, system.plan
        self.numbers: dict[str, float] = {}
        self._hooks: list[Any] = []
        self._embedding_norms: dict[str, float] = {}
        self._alike: dict[str, int] = {}
        """Batches in a row in which a message was nearly the same for all rows."""
        self._warned = False

    def begin(self, plan: Plan | None = None) -> None:
        """Listen to the links from now on.

        Args:
            plan: that is trained; None takes the system's.
        """
        self.numbers, self.plan = {}, plan or self.system.plan
        for link in self.plan.links:
            hook = self.system.link(link.id).register_forward_hook(self._listener(link))
            self._hooks.append(hook)

    def end(self) -> None:
        """Stop listening."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def message(self, passing: Value, content: Any) -> Any:
        """See a message on its way; its gradient's norm is noted when it comes. Texts just pass."""
        if not isinstance(content, Tensor):
            return content
        name, message_BKD = passing.name, content
        edge = next(edge for edge in self.plan.graph.edges if edge.id == passing.edge)
        self._note_norm(f"message_norm/{name}", edge.target, message_BKD)
        self._note_cosine(name, message_BKD)
        if message_BKD.requires_grad:
            message_BKD.register_hook(lambda grad: self._note_gradient(name, grad))
        return message_BKD

    def gradients(self) -> None:
        """Norms of gradients and weights of the links and adapters that learn."""
        modules: dict[str, nn.Module] = {id: self.system.link(id) for id in self.system.link_ids()}
        modules |= {f"adapter.{a}": one for a, one in self.system.agent_adapters().items()}
        for id, module in modules.items():
            learning = [p for p in module.parameters() if p.requires_grad]
            if learning:
                grads = [p.grad for p in learning if p.grad is not None]
                self.numbers[f"grad_norm/{id}"] = _norm(grads)
                self.numbers[f"weight_norm/{id}"] = _norm(learning)

    def _note_gradient(self, name: str, grad: Tensor) -> None:
        key = f"message_grad/{name}"
        self.numbers[key] = math.hypot(self.numbers.get(key, 0.0), float(grad.norm()))

    def _note_cosine(self, name: str, message_BKD: Tensor) -> None:
        """Note how alike the messages of different rows are, and warn once."""
        cosine = row_cosine(message_BKD)
        if cosine is None:
            return
        self.numbers[f"message_cosine/{name}"] = cosine
        self._alike[name] = self._alike.get(name, 0) + 1 if cosine > COLLAPSED else 0
        if self._alike[name] == PATIENCE and not self._warned:
            self._warned = True
            log.warning(
                "message %s hardly depends on the input: the mean cosine between different rows is "
                "%.3f; train the inner and the edge loop first, or check that the sender's prompt "
                "shows what differs between rows",
                name,
                cosine,
            )

    def _listener(self, planned: LinkPlan) -> Any:
        @torch.no_grad()
        def listen(link: Link, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            branches = link.branches(inputs[0])
            if branches is not None:
                learnt, residual = (float(branch.norm()) for branch in branches)
                self.numbers[f"residual_ratio/{planned.id}"] = learnt / max(residual, 1e-12)
            if planned.role == "inner":  # its users share one backbone, and one embedding norm
                self._note_norm(f"latent_norm/{'+'.join(planned.users)}", planned.users[0], output)

        return listen

    def _note_norm(self, key: str, agent: str, rows: Tensor) -> None:
        if agent not in self._embedding_norms:
            backbone = self.system.backbone_of(agent)
            sample = torch.arange(min(4096, backbone.planned.info.vocab_size))
            self._embedding_norms[agent] = float(backbone.embed(sample).float().norm(dim=-1).mean())
        if rows.numel():
            norm = float(rows.detach().float().norm(dim=-1).mean())
            self.numbers[key] = norm / max(self._embedding_norms[agent], 1e-12)


@torch.no_grad()
def row_cosine(message_BKD: Tensor) -> float | None:
    """Mean cosine between the messages of different rows; None for fewer than two rows."""
    count = len(message_BKD)
    if count < 2 or not message_BKD.numel():
        return None
    rows_BN = F.normalize(message_BKD.float().flatten(start_dim=1), dim=-1)
    pairs = rows_BN.sum(dim=0).square().sum() - rows_BN.square().sum()
    return float(pairs) / (count * (count - 1))


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(t.detach().float().square().sum()) for t in tensors))


@torch.no_grad()
def stability(
    system: System, rows: Sequence[Row], plan: Plan | None = None, *, size: float = 1e-3
) -> dict[str, float]:
    """How fast a small perturbation of the prompt grows over an agent's latent steps.

    Args:
        system: System that rolls out.
        rows: B samples.
        plan: Plan with the rounds and latent steps; None uses the system's.
        size: Size of the perturbation, relative to the prompt's embeddings.

    Returns:
        `"round1.planner"` → factor per latent step (above 1, differences grow), for rollouts of at
        least two steps.
    """
    plan = plan or system.plan
    growth: dict[str, float] = {}
    executor = executors.get("cached")()
    generator = torch.Generator().manual_seed(0)

    def roll(step: Rollout, turn: StepInput) -> Tensor:
        inner, prompt = system.link(step.inner), turn.prompt
        states = executor.rollout(turn.backbone, inner, prompt, step.latent_steps)
        if step.latent_steps > 1:
            noise = torch.randn(prompt.x_BTD.shape, generator=generator).to(prompt.x_BTD)
            scale = size * prompt.x_BTD.norm() / noise.norm()
            moved = prompt._replace(x_BTD=prompt.x_BTD + scale * noise, prefix=None)
            other = executor.rollout(turn.backbone, inner, moved, step.latent_steps)
            distance_K = (other - states).float().norm(dim=-1).mean(dim=0)
            ratio = float(distance_K[-1] / distance_K[0].clamp_min(1e-12))
            growth[step.output] = ratio ** (1 / (step.latent_steps - 1))
        return states

    interpreter = Interpreter(
        team=system, plan=plan, executor=executor, sampling=Sampling(), roll=roll
    )
    interpreter.walk(rows, finish=lambda turn: None)
    return growth
