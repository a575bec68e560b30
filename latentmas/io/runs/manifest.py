"""Schema of a run manifest: the team, the data, the options and the outcome of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from latentmas import __version__
from latentmas.atomic import write_text_atomically
from latentmas.errors import DataError
from latentmas.io._newer import is_newer, say_left_out, upgrade, without_unknown
from latentmas.plan import BackboneInfo, RunOptions
from latentmas.redact import redact
from latentmas.safe_data import parse_json, read_limited
from latentmas.spec import Frozen, GraphSpec

__all__ = ["Answer", "DataRecord", "RunManifest", "TeamRecord"]

VERSION = 4
LARGEST = 512 * 2**20
MOST_ITEMS = 50_000_000
"""Maximum number of JSON values in a manifest; each token id is one."""
_SHOWN = 5
"""Maximum number of validation problems that one error lists."""


class TeamRecord(Frozen):
    """The team that was run."""

    source: str | None
    """Folder or Hub id; None for a team that was loaded from its graph, with initialised links."""
    revision: str | None
    """Commit on the Hub."""
    seed: int
    """Seed of the initialised links."""
    digest: str
    """Digest of the plan, before the run's `rounds` and `latent_steps` are applied."""
    links: dict[str, str]
    """SHA-256 of each link's weights, by id."""
    graph: GraphSpec
    facts: dict[str, BackboneInfo]
    """Facts about each backbone, by key."""
    commits: dict[str, str]
    """Hub commit of each backbone, by key."""
    devices: dict[str, str]
    """Device of each agent."""
    dtypes: dict[str, str]
    """Data type of each agent's backbone."""


class DataRecord(Frozen):
    """The samples of the run."""

    rows: int
    digest: str
    """SHA-256 of the samples, in order."""
    path: str | None = None
    """File that the samples were read from."""
    samples: tuple[dict[str, Any], ...] | None = None
    """The samples themselves, if there was no file."""


class Answer(Frozen):
    """Outcome of one sample."""

    tokens: tuple[tuple[int, ...], ...]
    """Token ids of each answer."""
    texts: tuple[str, ...]
    """SHA-256 of each answer's text."""


class RunManifest(Frozen):
    """Everything that a run depends on, and digests of its results."""

    format: Literal["latentmas-run"] = "latentmas-run"
    version: int = Field(default=VERSION, ge=1, strict=True)
    latentmas: str = __version__
    began: str
    """Start time, ISO 8601 in UTC."""
    seconds: float
    team: TeamRecord
    data: DataRecord
    arguments: RunOptions
    """Options of `System.run`, with the values chosen for `executor` and `refill_threshold`."""
    answers: tuple[Answer, ...]
    digest: str
    """SHA-256 of all answers."""
    scores: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str | None]
    hardware: dict[str, Any]

    def save(self, path: str | Path) -> Path:
        """Write the manifest atomically as JSON, one answer per line."""
        data = self.model_dump(mode="json")
        answers = ",\n  ".join(json.dumps(answer) for answer in data.pop("answers"))
        head = json.dumps(data, indent=1, ensure_ascii=False).removesuffix("\n}")
        return write_text_atomically(Path(path), f'{head},\n "answers": [\n  {answers}\n ]\n}}\n')

    @classmethod
    def load(cls, path: str | Path) -> RunManifest:
        """Read a manifest that `save` wrote.

        Raises:
            DataError: LM512 when the file is not a run manifest.
        """
        path, data = Path(path), None
        try:
            data = parse_json(read_limited(path, LARGEST), most_items=MOST_ITEMS, numbers="any")
            if isinstance(data, dict) and is_newer(data, VERSION):
                data, left_out = without_unknown(cls, data)
                if left_out:
                    say_left_out(str(path), data, left_out)
            return cls.model_validate(_as_now(data))
        except DataError:
            raise
        except (OSError, ValidationError, ValueError, RecursionError, KeyError, TypeError) as error:
            newer = isinstance(data, dict) and is_newer(data, VERSION)
            hint = f"; a newer version wrote it: {upgrade(data or {})}" if newer else ""
            raise DataError(
                f"LM512 {redact(str(path))!r} is not a run manifest: {_why(error)}{hint}"
            ) from error


def _why(error: Exception) -> str:
    """The reason on one line; for a validation error, each field with its problem."""
    if not isinstance(error, ValidationError):
        return str(error)
    found = [
        f"{'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    rest = len(found) - _SHOWN
    return "; ".join(found[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


def _as_now(data: Any) -> Any:
    """Convert the data of an older manifest to the current version.

    In version 1, the run's token limit applied only to agents without a limit of their own. Up to
    version 2, sampling options were recorded even when they had no effect, and `refill` could be
    missing, which meant 1. Up to version 3, `refill_threshold` was called `refill`.
    """
    if not isinstance(data, dict) or data.get("version") not in (1, 2, 3):
        return data
    told = data.get("arguments")
    if not isinstance(told, dict):
        return data
    now = dict[str, Any](told)
    if "refill" in now:
        now["refill_threshold"] = now.pop("refill")
    if data["version"] < 3:
        ignored = () if told.get("do_sample") else ("temperature", "top_p", "top_k", "min_p")
        now = {"refill_threshold": 1.0} | {n: v for n, v in now.items() if n not in ignored}
    if data["version"] == 1 and isinstance(told.get("max_new_tokens"), int):
        now["max_new_tokens"] = _for_free_agents(data, told["max_new_tokens"])
    return data | {"arguments": now}


def _for_free_agents(data: dict[str, Any], limit: int) -> dict[str, int]:
    """The limit as a mapping of the agents that have no limit of their own."""
    graph = GraphSpec.model_validate(data["team"]["graph"])
    return {agent.name: limit for agent in graph.agents if agent.max_new_tokens is None}
