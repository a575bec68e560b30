"""What training will take, before the first step: bytes from shapes, seconds from a dry run.

Shapes: `T` prompt positions, `K` latent steps, `L` layers, `D` width, `V` vocabulary.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from latentmas.backbones import LoadedBackbone
from latentmas.engine import answer_ids, pack
from latentmas.generation import tool_schemas
from latentmas.plan import Decode, Plan, Rollout, latent_rows
from latentmas.runtime import System
from latentmas.training.data import Row
from latentmas.training.losses.outer import OuterLoss
from latentmas.training.memory.constant import constant_rollouts
from latentmas.training.memory.saved_tensors import saved_bytes

__all__ = ["DryRun", "Estimate", "available_bytes", "dry_run", "estimate"]


@dataclass(frozen=True)
class Estimate:
    """Bytes of one training step on one batch."""

    backbones: int
    """Frozen weights."""
    links: int
    """Weights of the links and adapters that learn, their gradients and the optimizer's two
    moments, fp32."""
    activations: int
    """Saved for the backward pass without checkpointing."""
    checkpointed: int
    """Saved with `checkpoint="rollout"`, at the worst moment."""

    def total(self, *, checkpoint: bool) -> int:
        """All of it."""
        return self.backbones + self.links + (self.checkpointed if checkpoint else self.activations)

    def __str__(self) -> str:
        parts = {
            "backbones": self.backbones,
            "links with gradients and moments": self.links,
            "activations": self.activations,
            'activations with checkpoint="rollout"': self.checkpointed,
        }
        return "\n".join(f"{name:<38}{size / 2**20:>12,.1f} MiB" for name, size in parts.items())


@dataclass(frozen=True)
class DryRun:
    """One forward and backward pass, measured beside its estimate."""

    estimate: Estimate
    checkpoint: bool
    saved: int
    """Bytes that autograd kept."""
    seconds: float
    loss: float

    def __str__(self) -> str:
        guess = self.estimate.checkpointed if self.checkpoint else self.estimate.activations
        return (
            f"{self.estimate}\n"
            f"{'one step, measured: kept by autograd':<38}{self.saved / 2**20:>12,.1f} MiB "
            f"(estimated {guess / 2**20:,.1f})\n"
            f"{'one step, measured':<38}{self.seconds:>12.2f} s, loss {self.loss:.4f}"
        )


def estimate(
    system: System, plan: Plan, rows: Sequence[Row], answer_field: str = "answer"
) -> Estimate:
    """Bytes of a step of the outer loop, from shapes alone; only embeddings are looked up.

    Measured on real layers, a frozen decoder layer keeps about 9·D + 3·(its MLP's width) numbers
    a position, and the cache is kept once; with checkpointing, each latent step of the rollout that
    runs again keeps the keys and values so far.

    Args:
        system: System whose links are trained.
        plan: Plan with the rounds and latent steps.
        rows: Rows of a batch.
        answer_field: Field of the answer.
    """
    constant = constant_rollouts(system, plan)
    kept, again, inputs = list[int](), list[int](), 0
    for step in plan.turns():
        turn = _turn(system, plan, step, rows, answer_field)
        if step.output not in constant:
            kept.append(turn[0])
            again.append(turn[1])
            inputs += turn[2]
    models = [backbone.model for backbone in system.agent_backbones.values()]
    weights = {id(p): p for model in models for p in model.parameters() if not p.requires_grad}
    learning = sum(p.numel() for p in system.parameters() if p.requires_grad)
    return Estimate(
        backbones=sum(p.numel() * p.element_size() for p in weights.values()),
        links=16 * learning,
        activations=sum(kept),
        checkpointed=max(again, default=0) + inputs,
    )


def _turn(
    system: System, plan: Plan, step: Rollout | Decode, rows: Sequence[Row], answer_field: str
) -> tuple[int, int, int]:
    """Bytes that a turn keeps, those with keys and values at each step, and those of its input."""
    backbone, agent = system.backbone_of(step.agent), plan.graph.agent(step.agent)
    width = backbone.planned.info.hidden_size
    count = latent_rows(plan.steps)
    messages = {
        slot: torch.zeros(len(rows), count[value], width)
        for slot, value in step.inputs.items()
        if value in count
    }
    texts = dict.fromkeys(step.inputs.keys() - messages.keys(), "")
    scopes = [{name: row[name] for name in plan.graph.inputs} | texts for row in rows]
    prompt = pack(backbone, agent, scopes, messages, tools=tool_schemas(agent, system.tools))
    batch, length = prompt.mask_BT.shape
    steps = step.latent_steps if isinstance(step, Rollout) else 0
    answer = 0
    if not steps:
        answer = max(len(answer_ids(backbone, str(row[answer_field]))) for row in rows)
    fixed = 0 if backbone.learns else prompt.fixed
    once, anew = (
        _layers(backbone, batch, length, fixed, steps, answer, once=once) for once in (True, False)
    )
    return once, anew, prompt.x_BTD.numel() * prompt.x_BTD.element_size()


def _layers(
    backbone: LoadedBackbone,
    batch: int,
    length: int,
    fixed: int,
    steps: int,
    answer: int,
    *,
    once: bool,
) -> int:
    config = backbone.family.text_config(backbone.model)
    width, size = config.hidden_size, torch.finfo(backbone.dtype).bits // 8
    inside = int(getattr(config, "intermediate_size", 4 * width))
    heads = int(config.num_attention_heads)
    head = int(getattr(config, "head_dim", None) or width // heads)
    positions = length - fixed + steps + answer
    own = positions * (9 * width + 3 * inside)
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    read = 2 * heads * head * length  # by the prompt, repeated for each query head
    cached = read + 2 * shared * head * (length + steps if once else steps * (length + steps / 2))
    logits = answer * backbone.planned.info.vocab_size * (2 if size >= 4 else 4)
    return int(batch * size * (config.num_hidden_layers * (own + cached) + logits))


def available_bytes(device: torch.device) -> int:
    """Memory that is free now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def dry_run(loss: OuterLoss, system: System, rows: Sequence[Row], *, checkpoint: bool) -> DryRun:
    """One forward and backward pass over a batch; gradients are thrown away."""
    guess = estimate(system, loss.plan, rows, loss.answer_field)
    began = time.perf_counter()
    with saved_bytes() as saved:
        value = loss(rows)["loss"]
    value.backward()
    seconds = time.perf_counter() - began
    system.zero_grad(set_to_none=True)
    return DryRun(guess, checkpoint, saved[0], seconds, float(value.detach()))
