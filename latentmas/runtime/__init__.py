"""Plan and weights to text: prompts, rollout, the interpreter, executors, the system."""

from latentmas.engine import Turn, executors, latent_rollout
from latentmas.generation import Retry, Sampling, ToolCall
from latentmas.runtime.history import Origin, Score, TrainingRecord
from latentmas.runtime.interpreter import Interpreter, Walk
from latentmas.runtime.observing.events import (
    Event,
    RunBegin,
    RunEnd,
    SampleEnd,
    StepBegin,
    StepEnd,
    Token,
    TurnRecord,
    Watcher,
)
from latentmas.runtime.observing.recording import Reading, RunRecord, TurnTimes
from latentmas.runtime.observing.taps import Tap
from latentmas.runtime.options import HOOKS, RunRequest, merge_options
from latentmas.runtime.result import RunResult
from latentmas.runtime.system import System

__all__ = [
    "Event",
    "HOOKS",
    "Interpreter",
    "Origin",
    "Reading",
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
    "Turn",
    "TurnRecord",
    "TurnTimes",
    "Walk",
    "Watcher",
    "executors",
    "latent_rollout",
    "merge_options",
]
