"""What the page sends: a question, the sizes of the run, and changes of messages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from latentmas.errors import DataError
from latentmas.plan import Plan
from latentmas.serve.limits import beyond, limits_of

__all__ = ["Ask", "Change", "read_ask"]

Text = Annotated[str, Field(max_length=200_000)]
Count = Annotated[int, Field(ge=1)]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Change(_Sent):
    """A change of what passes along one edge."""

    edge: str = Field(max_length=1_000)
    """Id of the edge, such as `planner->critic.plan`."""
    how: Literal["zero", "shuffle", "words", "question"]
    """Zeros (no text, on a text edge), the rows in another order, the words in `words`, or what
    passes there for the question in `Ask.other`."""
    round: Count | None = None
    """Round in which the message was made; None changes it in every round."""
    words: Text = ""


class Ask(_Sent):
    """One run of the team or of its text twin."""

    inputs: dict[str, Text]
    """A text for each of the graph's inputs."""
    rounds: Count | None = None
    """Number of rounds; None: the graph's."""
    latent_steps: Count | None = None
    """Number of latent steps of every agent; None: those that the graph declares."""
    max_new_tokens: Count | None = None
    """Maximum number of new tokens of each agent that writes; None: their own limits."""
    twin: bool = False
    """Whether the text twin answers instead of the team."""
    changes: list[Change] = Field(default=[], max_length=64)
    other: dict[str, Text] = Field(default={})
    """Inputs of another question, for changes of the kind `question`."""


def read_ask(body: bytes, plan: Plan) -> Ask:
    """Read what the page has sent.

    Args:
        body: JSON of an `Ask`.
        plan: Plan of the team.

    Raises:
        DataError: It is malformed, beyond the limits, or names an edge that the graph lacks; the
            message names every problem.
    """
    try:
        ask = Ask.model_validate_json(body)
    except ValidationError as error:
        raise DataError("; ".join(_problem(item) for item in error.errors())) from None
    sizes = {"rounds": ask.rounds, "latent_steps": ask.latent_steps}
    sizes["max_new_tokens"] = ask.max_new_tokens
    problems = [*beyond(sizes, limits_of(plan)), *_lost(ask, plan)]
    if problems:
        raise DataError("; ".join(problems))
    return ask


def _problem(item: Any) -> str:
    where = ".".join(map(str, item["loc"])) or "the request"
    return f"{where}: {item['msg'][:1].lower()}{item['msg'][1:]}"


def _lost(ask: Ask, plan: Plan) -> list[str]:
    """Changes that would never apply."""
    edges = {edge.id for edge in plan.graph.edges}
    rounds = ask.rounds or plan.graph.rounds
    problems = [
        f"changes.{i}: the edge {change.edge!r} is unknown; edges: {', '.join(sorted(edges))}"
        for i, change in enumerate(ask.changes)
        if change.edge not in edges
    ]
    problems += [
        f"changes.{i}: round {change.round} is beyond the run's {rounds}"
        for i, change in enumerate(ask.changes)
        if change.round is not None and change.round > rounds
    ]
    if any(change.how == "question" for change in ask.changes) and not ask.other:
        problems.append("other: give the inputs of the question whose messages to use")
    return problems
