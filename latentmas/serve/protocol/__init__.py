"""OpenAI's requests and responses, read and written."""

from latentmas.serve.protocol.options import Question, model_name, read_question
from latentmas.serve.protocol.requests import ChatRequest, CompletionRequest, read_request
from latentmas.serve.protocol.responses import Answer, Form

__all__ = [
    "Answer",
    "ChatRequest",
    "CompletionRequest",
    "Form",
    "Question",
    "model_name",
    "read_question",
    "read_request",
]
