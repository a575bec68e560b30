"""What will happen: pure data between the compiler and the runtime. No torch."""

from latentmas.plan.backbone import BackboneCosts, BackboneInfo, PlanBackbone
from latentmas.plan.limits import DEFAULT_MAX_NEW_TOKENS, TokenLimit, with_limits
from latentmas.plan.links import LinkPlan
from latentmas.plan.plan import Plan
from latentmas.plan.steps import Decode, Rollout, Step, Transfer, rollouts_together
from latentmas.plan.verify import reads, verify_steps

__all__ = [
    "DEFAULT_MAX_NEW_TOKENS",
    "BackboneCosts",
    "BackboneInfo",
    "Decode",
    "LinkPlan",
    "Plan",
    "PlanBackbone",
    "Rollout",
    "Step",
    "TokenLimit",
    "Transfer",
    "reads",
    "rollouts_together",
    "verify_steps",
    "with_limits",
]
