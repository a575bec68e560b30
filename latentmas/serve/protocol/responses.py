"""Responses in OpenAI's form: whole answers, and the chunks of a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from latentmas.runtime import Finished
from latentmas.serve.protocol.options import Question
from latentmas.serve.protocol.requests import ChatRequest

__all__ = ["Answer", "Form"]

Json = dict[str, Any]
_REASONS = {"stop": "stop", "length": "length", "tool_limit": "length"}
"""Finish reasons, in OpenAI's words."""


@dataclass(frozen=True)
class Answer:
    """One choice of a response."""

    index: int
    text: str
    reason: str


@dataclass(frozen=True)
class Form:
    """Writes the response to one request."""

    question: Question
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        prefix = "chatcmpl" if self.chat else "cmpl"
        object.__setattr__(self, "id", self.id or f"{prefix}-{uuid.uuid4().hex}")

    @property
    def chat(self) -> bool:
        """Whether it answers a chat."""
        return isinstance(self.question.request, ChatRequest)

    @property
    def count(self) -> int:
        """Number of answers to each prompt."""
        return self.question.options.num_return_sequences

    def whole(self, results: Sequence[Finished]) -> Json:
        """A whole response.

        Args:
            results: Results of the prompts, in order.
        """
        choices = [self._choice(answer) for answer in self._answers(results)]
        body = self._head("chat.completion" if self.chat else "text_completion", choices)
        return body | {"usage": _usage(results), "latentmas": self._more(results)}

    def first(self) -> Iterator[Json]:
        """Chunks before any text: each choice of a chat begins with its role."""
        for index in range(self.count * len(self.question.samples) if self.chat else 0):
            yield self._chunk(index, {"role": "assistant", "content": ""}, None)

    def piece(self, number: int, sequence: int, text: str) -> Json:
        """A chunk with text that was added to an answer.

        Args:
            number: Number of the prompt.
            sequence: Number of the answer to it.
            text: The text.
        """
        return self._chunk(number * self.count + sequence, {"content": text}, None, text)

    def ends(self, number: int, result: Finished) -> Iterator[Json]:
        """Chunks that say why the answers to a prompt have ended."""
        for sequence, reason in enumerate(result.end.finish_reasons):
            yield self._chunk(number * self.count + sequence, {}, _REASONS[reason])

    def last(self, results: Sequence[Finished]) -> Iterator[Json]:
        """Chunks after all answers: what they cost, if that was asked for."""
        options = self.question.request.stream_options
        wanted = options is not None and options.include_usage
        if wanted or self.question.options.record:
            more: Json = {"latentmas": self._more(results)}
            yield (
                self._head(self._chunk_kind, [])
                | more
                | ({"usage": _usage(results)} if wanted else {})
            )

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _head(self, kind: str, choices: list[Json]) -> Json:
        model = self.question.model
        head = {"id": self.id, "object": kind, "created": self.created, "model": model}
        return head | {"choices": choices}

    def _chunk(self, index: int, delta: Json, reason: str | None, text: str = "") -> Json:
        content = {"delta": delta} if self.chat else {"text": text}
        choice = {"index": index, **content, "logprobs": None, "finish_reason": reason}
        return self._head(self._chunk_kind, [choice])

    def _answers(self, results: Sequence[Finished]) -> Iterator[Answer]:
        for number, result in enumerate(results):
            pairs = zip(result.end.texts, result.end.finish_reasons, strict=True)
            for sequence, (text, reason) in enumerate(pairs):
                yield Answer(number * self.count + sequence, text, _REASONS[reason])

    def _choice(self, answer: Answer) -> Json:
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        content = {"message": message} if self.chat else {"text": answer.text}
        end = {"logprobs": None, "finish_reason": answer.reason}
        return {"index": answer.index, **content, **end}

    def _more(self, results: Sequence[Finished]) -> Json:
        """What OpenAI's form has no place for: the seed, and what was recorded."""
        more: Json = {"seed": self.question.seed}
        record = self.question.options.record
        if "messages" in record:
            more["messages"] = [_plain(result.messages) for result in results]
            more["text_messages"] = [dict(result.text_messages) for result in results]
        if "states" in record:
            more["states"] = [_plain(result.states) for result in results]
        return more


def _plain(values: Any) -> dict[str, Any]:
    """Tensors as lists of rows."""
    return {n: v.float().tolist() if isinstance(v, Tensor) else v for n, v in values.items()}


def _usage(results: Sequence[Finished]) -> Json:
    """What all agents have read and written for a request."""
    costs = [result.end.cost for result in results]
    prompt, written = sum(c.prompt_tokens for c in costs), sum(c.new_tokens for c in costs)
    final = sum(result.chosen for result in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "completion_tokens_details": {"reasoning_tokens": written - final},
        "latent_steps": sum(cost.latent_steps for cost in costs),
    }
