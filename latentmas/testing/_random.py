"""`random_system`: build a plan in memory with random weights of the real shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.errors import LatentMASError
from latentmas.testing._shapes import SHAPES, config_of
from latentmas.testing._tiny import tokenizer_of_bytes

if TYPE_CHECKING:
    from latentmas.backbones import LoadedBackbone
    from latentmas.plan import Plan, PlanBackbone
    from latentmas.runtime import System

__all__ = ["random_system"]


def random_system(
    plan: Plan, *, device: str = "cpu", dtype: str = "bfloat16", seed: int = 0
) -> System:
    """Build a system whose backbones have the shapes of the paper's models and random weights.

    It serves to measure speed and memory without a download. Its tokenizer is byte-level, and the
    text it generates is meaningless.

    Args:
        plan: a plan with the paper's models, such as
            `lm.templates.sequential_light().compile()`.
        device: device of the system.
        dtype: data type of the backbones.
        seed: random seed of all weights.

    Raises:
        LatentMASError: a backbone is not one of the paper's models.
    """
    from latentmas.runtime import System
    from latentmas.runtime.loading.init_weights import build_links

    agent_backbones: dict[str, LoadedBackbone] = {}
    for planned in plan.backbones.values():
        loaded = _random_backbone(planned, device, dtype, seed)
        agent_backbones |= dict.fromkeys(planned.agents, loaded)
    return System(plan, build_links(plan, seed), agent_backbones).to(device)


def _random_backbone(planned: PlanBackbone, device: str, dtype: str, seed: int) -> LoadedBackbone:
    import torch
    from transformers import AutoModelForCausalLM

    from latentmas.backbones import LoadedBackbone

    source = planned.spec.source
    if source not in SHAPES:
        known = ", ".join(SHAPES)
        raise LatentMASError(f"the shape of {source!r} is unknown; known models: {known}")
    model_type, fields = SHAPES[source]
    config = config_of(model_type, **fields).get_text_config(decoder=True)
    tokenizer = tokenizer_of_bytes()
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return LoadedBackbone(model, tokenizer, planned)
