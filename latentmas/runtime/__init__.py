"""Plan and weights to text: prompts, rollout, the interpreter, executors, the system."""

from latentmas.backbones import Mesh
from latentmas.engine import StepInput, WarmUp, executors, latent_rollout
from latentmas.generation import Retry, Sampling, ToolCall
from latentmas.runtime.flow import by_length
from latentmas.runtime.history import Origin, Score, TrainingRecord
from latentmas.runtime.interpreter import BatchState, Interpreter
from latentmas.runtime.loading.placement import check_system
from latentmas.runtime.methods.adapters import AgentAdapter
from latentmas.runtime.methods.describing import link_digests
from latentmas.runtime.methods.sharing import load_beside
from latentmas.runtime.observing.events import (
    Event,
    RunBegin,
    RunEnd,
    SampleCost,
    SampleEnd,
    StepBegin,
    StepEnd,
    StepRecord,
    Token,
    Watcher,
)
from latentmas.runtime.observing.recording import LatentReading, RunRecord, StepTimes
from latentmas.runtime.observing.streaming import TextWatcher
from latentmas.runtime.observing.taps import Tap
from latentmas.runtime.open_batch import Finished, JoinedSamples, OpenBatch
from latentmas.runtime.options import HOOKS, RunRequest, merge_options
from latentmas.runtime.result import RunResult
from latentmas.runtime.samples import bad_samples
from latentmas.runtime.system import System

__all__ = [
    "AgentAdapter",
    "Event",
    "Finished",
    "HOOKS",
    "JoinedSamples",
    "OpenBatch",
    "TextWatcher",
    "Interpreter",
    "Origin",
    "LatentReading",
    "Mesh",
    "RunBegin",
    "RunEnd",
    "Retry",
    "SampleCost",
    "SampleEnd",
    "RunRecord",
    "RunRequest",
    "RunResult",
    "Sampling",
    "Score",
    "StepBegin",
    "StepEnd",
    "System",
    "Tap",
    "Token",
    "ToolCall",
    "TrainingRecord",
    "StepInput",
    "StepRecord",
    "StepTimes",
    "BatchState",
    "WarmUp",
    "Watcher",
    "bad_samples",
    "by_length",
    "check_system",
    "executors",
    "latent_rollout",
    "link_digests",
    "load_beside",
    "merge_options",
]
