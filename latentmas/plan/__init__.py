"""The plan: pure data between the compiler and the runtime. No torch."""

from latentmas.plan._option_errors import field_bounds, item_type, value_types
from latentmas.plan.backbone import (
    AdapterInfo,
    BackboneCosts,
    BackboneInfo,
    PlanBackbone,
    QuantizedCosts,
)
from latentmas.plan.limits import DEFAULT_MAX_NEW_TOKENS, TokenLimit, answer_limits, with_limits
from latentmas.plan.links import LinkPlan
from latentmas.plan.placement import DeviceMap, MaxMemory
from latentmas.plan.plan import Plan
from latentmas.plan.run_options import OnError, PositionMode, RunOptions
from latentmas.plan.steps import (
    Combine,
    Decode,
    Rollout,
    Step,
    Transfer,
    Value,
    combined_in,
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
    "AdapterInfo",
    "BackboneCosts",
    "BackboneInfo",
    "Combine",
    "Decode",
    "DeviceMap",
    "LinkPlan",
    "MaxMemory",
    "OnError",
    "Plan",
    "PlanBackbone",
    "QuantizedCosts",
    "PositionMode",
    "Rollout",
    "RunOptions",
    "Step",
    "TokenLimit",
    "Transfer",
    "Value",
    "answer_limits",
    "combined_in",
    "edge_labels",
    "latent_rows",
    "message_on",
    "rollouts_together",
    "states_of",
    "text_of",
    "field_bounds",
    "item_type",
    "value_types",
    "verify_steps",
    "with_limits",
]
