"""What will happen: pure data between the compiler and the runtime. No torch."""

from latentmas.plan.backbone import BackboneInfo, PlanBackbone
from latentmas.plan.links import LinkPlan
from latentmas.plan.plan import Plan
from latentmas.plan.steps import Decode, Rollout, Step, Transfer
from latentmas.plan.verify import reads, verify_steps

__all__ = [
    "BackboneInfo",
    "Decode",
    "LinkPlan",
    "Plan",
    "PlanBackbone",
    "Rollout",
    "Step",
    "Transfer",
    "reads",
    "verify_steps",
]
