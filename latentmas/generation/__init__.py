"""How text is written: batches of rows, sampling, stop strings, retries, tool calls."""

from latentmas.generation.ahead import chooser_for
from latentmas.generation.batch import GenerationBatch
from latentmas.generation.controllers import RETRIES, Retry
from latentmas.generation.jobs import Answer, DecodeJob
from latentmas.generation.rows import FinishReason
from latentmas.generation.sampling import Sampling, pick, random_stream
from latentmas.generation.tool_calls import ToolCall, tool_schemas

__all__ = [
    "Answer",
    "DecodeJob",
    "FinishReason",
    "GenerationBatch",
    "RETRIES",
    "Retry",
    "Sampling",
    "ToolCall",
    "chooser_for",
    "pick",
    "random_stream",
    "tool_schemas",
]
