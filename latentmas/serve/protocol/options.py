"""A request as what a team runs: samples, options and a seed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentmas.errors import closest
from latentmas.plan import Plan, RunOptions
from latentmas.serve.errors import RequestError, bad_request
from latentmas.serve.protocol.conversation import text_of
from latentmas.serve.protocol.requests import ChatRequest, CompletionRequest
from latentmas.serve.settings import ServeSettings
from latentmas.serve.tickets import Asked

__all__ = ["COLDEST", "Question", "model_name", "read_question"]

COLDEST = 1e-3
"""Temperatures below it take the most likely token, as 0 does."""
_SAMPLING = ("temperature", "top_p", "top_k", "min_p")


@dataclass(frozen=True)
class Question:
    """What a request asks of a team."""

    request: ChatRequest | CompletionRequest
    model: str
    """Name of the model."""
    options: RunOptions
    """Options of each prompt, with seed 0."""
    seed: int
    """Seed of each prompt: the client's, or one that was drawn."""
    samples: tuple[Mapping[str, Any], ...]
    """Inputs of the graph for each prompt."""

    @property
    def asked(self) -> list[Asked]:
        """The prompts for the engine."""
        return [Asked(sample, self.options, self.seed) for sample in self.samples]


def model_name(plan: Plan, settings: ServeSettings) -> str:
    """Name of the model for clients."""
    return settings.model or plan.graph.name


def read_question(
    request: ChatRequest | CompletionRequest, plan: Plan, settings: ServeSettings
) -> Question:
    """Turn a request into what a team runs.

    Args:
        request: The request.
        plan: Plan of the team.
        settings: Limits of the server.

    Raises:
        RequestError: The model is another one, a limit is exceeded, or inputs do not fit the graph.
    """
    model = model_name(plan, settings)
    if request.model != model:
        raise RequestError(
            404,
            f"the model {request.model!r:.80} does not exist; this server has {model!r}",
            param="model",
            code="model_not_found",
        )
    _check_limits(request, plan, settings)
    seed = secrets.randbits(31) if request.seed is None else request.seed
    samples = tuple(_samples(request, plan, settings))
    if len(samples) > settings.max_waiting:
        most = settings.max_waiting
        raise bad_request(f"{len(samples)} prompts; this server allows at most {most}", "prompt")
    return Question(request, model, _options(request, plan), seed, samples)


def _check_limits(
    request: ChatRequest | CompletionRequest, plan: Plan, settings: ServeSettings
) -> None:
    graph, (limit_name, limit) = plan.graph, request.limit
    steps = max((graph.steps_of(agent) for agent in graph.agents), default=0)
    limits = {
        "n": (request.n, settings.max_rows),
        limit_name: (limit, settings.max_new_tokens),
        "rounds": (request.rounds, max(settings.max_rounds, graph.rounds)),
        "latent_steps": (request.latent_steps, max(settings.max_latent_steps, steps)),
    }
    for name, (asked, most) in limits.items():
        if asked is not None and asked > most:
            raise bad_request(f"{name} is {asked}; this server allows at most {most}", name)


def _options(request: ChatRequest | CompletionRequest, plan: Plan) -> RunOptions:
    """Options of the run; without a temperature and the like, the most likely token is taken."""
    given: dict[str, Any] = {
        name: value
        for name in ("rounds", "latent_steps", "retry", "repetition_penalty", "record")
        if (value := getattr(request, name)) is not None
    }
    _, limit = request.limit
    if limit is not None:
        given["max_new_tokens"] = {plan.output: limit}
    if request.n is not None:
        given["num_return_sequences"] = request.n
    if request.stop:
        given["stop"] = request.stop
    drawn = {n: v for n in _SAMPLING if (v := getattr(request, n)) is not None}
    cold = drawn.get("temperature", 1.0) < COLDEST
    if not cold and (drawn or request.n not in (None, 1)):
        given |= {"do_sample": True, **drawn}
    return RunOptions.read(given, _spelled)


def _spelled(name: str, value: Any = ..., /) -> str:
    """An option as clients write it."""
    if name == "do_sample":
        return "a temperature above 0"
    own = {"max_new_tokens": "max_tokens", "num_return_sequences": "n"}.get(name, name)
    return own if value is ... else f"{own}={value!r}"


def _samples(
    request: ChatRequest | CompletionRequest, plan: Plan, settings: ServeSettings
) -> list[Mapping[str, Any]]:
    """The graph's inputs for each prompt: those given by name, and the text in the one left."""
    names, given = plan.graph.inputs, dict(request.inputs or {})
    for name in given:
        if name not in names:
            guess = closest(name, names)
            hint = f"did you mean {guess!r}? " if guess else ""
            known = ", ".join(names) or "none"
            raise bad_request(f"unknown input {name!r}; {hint}known: {known}", f"inputs.{name}")
    left = [name for name in names if name not in given]
    field, texts = _texts(request, settings)
    if texts is None and not left:
        return [given]
    if texts is None or len(left) != 1:
        raise bad_request(_fit(field, left, texts is not None), field)
    return [{**given, left[0]: text} for text in texts]


def _texts(
    request: ChatRequest | CompletionRequest, settings: ServeSettings
) -> tuple[str, list[str] | None]:
    """The texts of a request, with the name of their field; None where it has none."""
    if isinstance(request, ChatRequest):
        messages = request.messages
        return "messages", [text_of(messages, settings.conversation)] if messages else None
    if isinstance(request.prompt, str):
        return "prompt", [request.prompt] if request.prompt or not request.inputs else None
    return "prompt", request.prompt or None


def _fit(field: str, left: list[str], text: bool) -> str:
    """Why the text of a request does not fit the graph's inputs."""
    if not left:
        return f"inputs fills every input of the graph; send {field} empty"
    if not text:
        return f"{field} is empty; it fills the graph's input {left[0]!r}"
    listing = ", ".join(left)
    return (
        f"the graph has the inputs {listing}, and {field} fills one of them: give the others by "
        'name, in Python with extra_body={"inputs": {…}}'
    )
