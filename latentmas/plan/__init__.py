"""What will happen: pure data between the compiler and the runtime. No torch."""

from latentmas.plan.backbone import BackboneCosts, BackboneInfo, PlanBackbone
from latentmas.plan.explanation import Explanation, StepCost
from latentmas.plan.hardware import Hardware
from latentmas.plan.limits import DEFAULT_MAX_NEW_TOKENS, TokenLimit, with_limits
from latentmas.plan.links import LinkPlan
from latentmas.plan.plan import Plan
from latentmas.plan.steps import (
    Combine,
    Decode,
    Rollout,
    Step,
    Transfer,
    Value,
    edge_labels,
    latent_rows,
    message_on,
    rollouts_together,
    states_of,
    text_of,
)
from latentmas.plan.verify import verify_steps

__all__ = [
    "DEFAULT_MAX_NEW_TOKENS",
    "BackboneCosts",
    "BackboneInfo",
    "Combine",
    "Decode",
    "Explanation",
    "Hardware",
    "LinkPlan",
    "Plan",
    "PlanBackbone",
    "Rollout",
    "Step",
    "StepCost",
    "TokenLimit",
    "Transfer",
    "Value",
    "edge_labels",
    "latent_rows",
    "message_on",
    "rollouts_together",
    "states_of",
    "text_of",
    "verify_steps",
    "with_limits",
]
