"""The fields of requests: those that act, those that may be left, and those that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from latentmas.errors import closest
from latentmas.safe_data import parse_json
from latentmas.serve.errors import RequestError, bad_request

__all__ = [
    "ChatRequest",
    "CompletionRequest",
    "Message",
    "Request",
    "StreamOptions",
    "read_request",
]

R = TypeVar("R", bound="Request")
StopString = Annotated[str, Field(max_length=1000)]

IGNORED = frozenset(
    ("user", "metadata", "store", "service_tier", "parallel_tool_calls", "prompt_cache_key")
) | {"safety_identifier", "prompt_cache_retention"}
"""Fields without any effect on an answer; they are accepted and ignored."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields of OpenAI that would change an answer and cannot: only null and these values, which change
nothing, are accepted."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(_Strict):
    """How a stream is written."""

    include_usage: bool = False
    """Whether a last chunk says what the answer cost."""
    include_obfuscation: bool | None = None
    """Ignored."""


class Message(BaseModel):
    """A turn of a conversation."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: str
    content: str | list[dict[str, Any]] | None = None


class Request(_Strict):
    """Fields of both endpoints."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1)
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = None
    seed: int | None = None
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    top_k: int | None = Field(default=None, ge=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    rounds: int | None = Field(default=None, ge=1)
    latent_steps: int | None = Field(default=None, ge=0)
    retry: Literal["math", "choice", "code", "search"] | None = None
    inputs: dict[str, Any] | None = None
    record: list[Literal["messages", "states"]] | Literal["messages", "states"] | None = None

    @property
    def limit(self) -> tuple[str, int | None]:
        """The limit on the answer's tokens, with the name of its field."""
        return "max_tokens", self.max_tokens


class ChatRequest(Request):
    """Body of `/v1/chat/completions`."""

    messages: list[Message]
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @property
    def limit(self) -> tuple[str, int | None]:
        """The limit on the answer's tokens, with the name of its field."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return super().limit


class CompletionRequest(Request):
    """Body of `/v1/completions`."""

    prompt: str | list[str]


def read_request(kind: type[R], raw: bytes) -> R:
    """Read the body of a request.

    Args:
        kind: Model of the body.
        raw: The body, as JSON.

    Raises:
        RequestError: It is not JSON, or a field is missing, unknown, wrong or unsupported; the
            message names the first such field.
    """
    try:
        body = parse_json(raw)
    except ValueError as error:
        raise bad_request(f"the body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise bad_request(f"the body is a JSON {_kind(body)}; send an object")
    fields = {name: value for name, value in body.items() if value is not None}
    _check_names(kind, fields)
    left = {name: value for name, value in fields.items() if name in kind.model_fields}
    try:
        return kind.model_validate(left)
    except ValidationError as error:
        raise _field_error(error) from None


def _check_names(kind: type[Request], fields: Mapping[str, Any]) -> None:
    """Refuse fields that are unknown, or that ask for what a team cannot give."""
    for name, value in fields.items():
        if name in kind.model_fields or name in IGNORED:
            continue
        if name not in NEUTRAL:
            guess = closest(name, kind.model_fields)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise bad_request(f"unknown field {name!r}{hint}", name, "unknown_parameter")
        if value not in NEUTRAL[name]:
            raise bad_request(
                f"{name} is not supported by latent teams; leave it out",
                name,
                "unsupported_parameter",
            )


def _field_error(error: ValidationError) -> RequestError:
    """The first problem that pydantic found, in OpenAI's form."""
    items = error.errors(include_url=False, include_context=False)
    first = items[0]["loc"][0]
    # Of a union, the alternative whose type is right says what is wrong.
    item = max(
        (item for item in items if item["loc"][0] == first),
        key=lambda item: (len(item["loc"]), not item["type"].endswith("_type")),
    )
    where = [str(part) for part in item["loc"] if not _names_a_type(part)]
    param = ".".join(where)
    if item["type"] == "missing":
        return bad_request(f"the field {param!r} is missing", param, "missing_required_parameter")
    found = repr(item["input"])
    shown = found if len(found) <= 60 else found[:60] + "…"
    says = item["msg"][0].lower() + item["msg"][1:]
    return bad_request(f"{param} is {shown}: {says}", param, "invalid_value")


def _names_a_type(part: str | int) -> bool:
    """Whether a part of a location names an alternative of a union rather than a field."""
    kinds = ("str", "int", "constrained-str")
    return isinstance(part, str) and (part in kinds or "[" in part)


def _kind(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
