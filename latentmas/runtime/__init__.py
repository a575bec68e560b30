"""Plan and weights to text: prompts, rollout, the interpreter, executors, the system."""

from latentmas.engine import StepInput, executors, latent_rollout
from latentmas.generation import Retry, Sampling, ToolCall
from latentmas.runtime.history import Origin, Score, TrainingRecord
from latentmas.runtime.interpreter import BatchState, Interpreter
from latentmas.runtime.observing.events import (
    Event,
    RunBegin,
    RunEnd,
    SampleEnd,
    StepBegin,
    StepEnd,
    StepRecord,
    Token,
    Watcher,
)
from latentmas.runtime.observing.recording import LatentReading, RunRecord, StepTimes
from latentmas.runtime.observing.taps import Tap
from latentmas.runtime.options import HOOKS, RunRequest, merge_options
from latentmas.runtime.result import RunResult
from latentmas.runtime.system import System

__all__ = [
    "Event",
    "HOOKS",
    "Interpreter",
    "Origin",
    "LatentReading",
    "RunBegin",
    "RunEnd",
    "Retry",
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
    "Watcher",
    "executors",
    "latent_rollout",
    "merge_options",
]
