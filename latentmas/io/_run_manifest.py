"""The form of a run's manifest: what was run, on what, with what outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from latentmas import __version__
from latentmas.atomic import write_text_atomically
from latentmas.errors import DataError
from latentmas.io._newer import is_newer, say_left_out, upgrade, without_unknown
from latentmas.plan import BackboneInfo
from latentmas.redact import redact
from latentmas.safe_data import parse_json, read_limited
from latentmas.spec import Frozen, GraphSpec

__all__ = ["Answer", "DataRecord", "RunArguments", "RunManifest", "TeamRecord"]

VERSION = 2
LARGEST = 512 * 2**20
MOST_ITEMS = 50_000_000
"""A token id is one."""


class TeamRecord(Frozen):
    """Which team was run."""

    source: str | None
    """Folder or hub id; None for links that were started from the graph."""
    revision: str | None
    """The hub's commit."""
    seed: int
    """Of links that were started."""
    digest: str
    """Of the plan, before `rounds` and `latent_steps` of the run."""
    links: dict[str, str]
    """SHA-256 of each link's weights, by id."""
    graph: GraphSpec
    facts: dict[str, BackboneInfo]
    """What was known of each backbone, by key."""
    commits: dict[str, str]
    """The hub's commit of each backbone, by key."""
    devices: dict[str, str]
    """Device of each agent."""
    dtypes: dict[str, str]
    """Type of each agent's backbone."""


class DataRecord(Frozen):
    """What it was run on."""

    rows: int
    digest: str
    """SHA-256 over the samples in their order."""
    path: str | None = None
    """The file that they came from."""
    samples: tuple[dict[str, Any], ...] | None = None
    """The samples themselves, where there was no file."""


class RunArguments(Frozen):
    """Arguments of `System.run` that its outcome depends on."""

    rounds: int | None = None
    latent_steps: int | None = None
    max_new_tokens: int | dict[str, int] | None
    """For all agents, or by agent; None: the agents' own limits."""
    do_sample: bool
    temperature: float
    top_p: float
    top_k: int | None
    min_p: float | None
    repetition_penalty: float
    stop: tuple[str, ...]
    seed: int | tuple[int, ...]
    num_return_sequences: int
    retry: str | None
    position_mode: Literal["mask", "column"]
    executor: str
    batch_size: int
    refill: float = 1.0
    on_error: Literal["raise", "keep"] = "raise"


class Answer(Frozen):
    """One sample's outcome."""

    tokens: tuple[tuple[int, ...], ...]
    """Token ids of each answer."""
    texts: tuple[str, ...]
    """SHA-256 of each answer's text."""


class RunManifest(Frozen):
    """Everything that a run depends on, and digests of what it gave."""

    format: Literal["latentmas-run"] = "latentmas-run"
    version: int = Field(default=VERSION, ge=1, strict=True)
    latentmas: str = __version__
    began: str
    """Time of the beginning, ISO 8601, UTC."""
    seconds: float
    team: TeamRecord
    data: DataRecord
    arguments: RunArguments
    answers: tuple[Answer, ...]
    digest: str
    """SHA-256 over all answers."""
    scores: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str | None]
    hardware: dict[str, Any]

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, an answer a line, whole or not at all."""
        data = self.model_dump(mode="json")
        answers = ",\n  ".join(json.dumps(answer) for answer in data.pop("answers"))
        head = json.dumps(data, indent=1, ensure_ascii=False).removesuffix("\n}")
        return write_text_atomically(Path(path), f'{head},\n "answers": [\n  {answers}\n ]\n}}\n')

    @classmethod
    def load(cls, path: str | Path) -> RunManifest:
        """Read what `save` wrote.

        Raises:
            DataError: LM512 when it is no manifest of a run.
        """
        path, data = Path(path), None
        try:
            data = parse_json(read_limited(path, LARGEST), most_items=MOST_ITEMS, numbers="any")
            if isinstance(data, dict) and is_newer(data, VERSION):
                data, left_out = without_unknown(cls, data)
                if left_out:
                    say_left_out(str(path), data, left_out)
            return _as_now(cls.model_validate(data))
        except DataError:
            raise
        except (OSError, ValidationError, ValueError, RecursionError) as error:
            newer = isinstance(data, dict) and is_newer(data, VERSION)
            hint = f"; a newer version wrote it: {upgrade(data or {})}" if newer else ""
            raise DataError(
                f"LM512 {redact(str(path))!r} is no manifest of a run: {error}{hint}"
            ) from error


def _as_now(told: RunManifest) -> RunManifest:
    """In version 1 the run's limit of tokens held only for agents without one of their own."""
    limit = told.arguments.max_new_tokens
    if told.version > 1 or not isinstance(limit, int):
        return told
    free = {a.name: limit for a in told.team.graph.agents if a.max_new_tokens is None}
    arguments = told.arguments.model_copy(update={"max_new_tokens": free})
    return told.model_copy(update={"arguments": arguments})
