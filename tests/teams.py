"""Small teams with real (random) weights that tests share."""

from __future__ import annotations

import pytest
import torch

import latentmas as lm
from latentmas.runtime import System
from latentmas.testing import tiny_backbone

QUESTIONS = [
    "What is 3 + 4?",
    "x",
    "A longer one: {{ plan }} {% if %} <<latent:1:0>> é中, then the value of x*y - 1?",
]


RECURSIVE = {"link": "recursive", "inner": "recursive"}
"""Options of a template: links with weights that start at random, inside agents and between."""


def tiny(family: str, width: int, seed: int = 0) -> lm.Backbone:
    """Weights large enough for states to depend on the prompt."""
    return tiny_backbone(family, width, seed=seed, initializer_range=0.12)


def sequential(family: str = "llama", **options: object) -> lm.Graph:
    """Three agents on three widths; the default of most tests."""
    small, wide = tiny(family, 16), tiny(family, 32, seed=1)
    options = {"rounds": 3, "latent_steps": 3, "max_new_tokens": 5} | RECURSIVE | options
    return lm.templates.sequential(planner=small, critic=wide, solver=small, **options)


def of_template(name: str, family: str) -> lm.Graph:
    """A template on tiny backbones of one family."""
    a, b = tiny(family, 16), tiny(family, 32, seed=1)
    options = {"rounds": 3, "latent_steps": 3, "max_new_tokens": 5, **RECURSIVE}
    if name == "sequential":
        return sequential(family)
    if name == "mixture":
        experts = {"math": a, "code": b, "science": a}
        return lm.templates.mixture(experts=experts, summarizer=b, **options)
    if name == "distillation":
        return lm.templates.distillation(expert=b, learner=a, **options)
    return lm.templates.deliberation(reflector=a, tool_caller=a, **options)


def load64(graph: lm.Graph) -> System:
    """The team in fp64, backbones and links."""
    return graph.compile().load(dtype="float64").double()


def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms in fp64, so that finite differences see the loss itself and not fp32 rounding."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

    def norm(self, x):
        return (
            self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
        )

    def rotary(self, x, position_ids):
        angles = position_ids[..., None].double() * self.inv_freq.double()
        both = torch.cat([angles, angles], dim=-1)
        return both.cos().to(x.dtype), both.sin().to(x.dtype)

    monkeypatch.setattr(LlamaRMSNorm, "forward", norm)
    monkeypatch.setattr(LlamaRotaryEmbedding, "forward", rotary)
