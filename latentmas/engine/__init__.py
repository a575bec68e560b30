"""How a backbone is fed: prompts, decoder sessions with their caches, executors, rollouts."""

from latentmas.engine.assembly import Nonces, check_chat_template
from latentmas.engine.auto_executor import (
    AUTO,
    Choice,
    choose_executor,
    choose_refill_threshold,
    known_executor,
    make_executor,
)
from latentmas.engine.buffers import (
    HOST_LIMIT,
    KEPT_SHARE,
    BufferPool,
    Shape,
    Use,
    bucket,
    enlarged,
    row_bucket,
    shape_for,
)
from latentmas.engine.choosers import MOST_LIKELY, Chooser
from latentmas.engine.executors import executors
from latentmas.engine.executors._base import Executor
from latentmas.engine.inner import GroupedInner, Inner
from latentmas.engine.lease import KeptMemory, kept_memory
from latentmas.engine.packing import (
    Packed,
    answer_ids,
    check_length,
    count_positions,
    merge,
    pack,
    prompt_ids,
)
from latentmas.engine.reuse.beginnings import (
    beginning_of,
    beginnings_kept,
    first_messages,
    state_after,
)
from latentmas.engine.reuse.prefix import MESSAGE, WORTHWHILE, Prefix, merged_prefix, shared_columns
from latentmas.engine.reuse.turns import find_prefix
from latentmas.engine.rollout import latent_rollout
from latentmas.engine.sessions._base import DecoderSession, positions
from latentmas.engine.sessions.cached import CachedSession
from latentmas.engine.step_input import StepInput
from latentmas.engine.team import Team
from latentmas.engine.warm_up import ExpectedSteps, WarmUp

__all__ = [
    "AUTO",
    "BufferPool",
    "CachedSession",
    "Choice",
    "Chooser",
    "Executor",
    "ExpectedSteps",
    "DecoderSession",
    "GroupedInner",
    "HOST_LIMIT",
    "Inner",
    "KEPT_SHARE",
    "KeptMemory",
    "MESSAGE",
    "MOST_LIKELY",
    "Nonces",
    "Packed",
    "Prefix",
    "Shape",
    "Team",
    "Use",
    "StepInput",
    "WORTHWHILE",
    "WarmUp",
    "answer_ids",
    "beginning_of",
    "beginnings_kept",
    "bucket",
    "check_chat_template",
    "check_length",
    "choose_executor",
    "choose_refill_threshold",
    "count_positions",
    "enlarged",
    "executors",
    "find_prefix",
    "first_messages",
    "kept_memory",
    "known_executor",
    "latent_rollout",
    "make_executor",
    "merge",
    "merged_prefix",
    "pack",
    "positions",
    "prompt_ids",
    "row_bucket",
    "shape_for",
    "shared_columns",
    "state_after",
]
