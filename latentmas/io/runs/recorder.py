"""`RunRecorder`: write the manifest of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from latentmas.atomic import check_writable
from latentmas.environment import hardware, versions
from latentmas.errors import DataError, LatentMASError
from latentmas.io._digest import digest_rows, digest_text, link_digests
from latentmas.io._training import plain
from latentmas.io.runs.manifest import Answer, DataRecord, RunManifest, TeamRecord
from latentmas.redact import redact, secrets_in
from latentmas.runtime import RunRequest, RunResult, System
from latentmas.spec import canonical_json

__all__ = ["RunRecorder", "answers_of"]

ScoreRun = Callable[[RunResult], Mapping[str, Any]]


class RunRecorder:
    """Writes the manifest of one run; `System.run(…, manifest=…)` accepts one, or a path."""

    def __init__(
        self,
        path: str | Path,
        *,
        data: str | Path | None = None,
        score: ScoreRun | None = None,
    ) -> None:
        """Set where and what to record.

        Args:
            path: path of the manifest.
            data: file that the samples come from; without one, the manifest contains the samples.
            score: function that computes scores from the result.
        """
        self.path, self._data, self._score = Path(path), data, score
        self._draft: dict[str, Any] = {}

    def begin(
        self, system: System, samples: Sequence[Mapping[str, Any]], request: RunRequest
    ) -> None:
        """Record the team, samples and options before the run starts.

        Raises:
            DataError: the manifest cannot be written to its path.
            LatentMASError: LM512 when a file cannot describe the run; LM513 when the manifest
                would contain a secret.
        """
        _check_repeatable(system, request)
        rows = [dict(sample) for sample in samples]
        told: dict[str, Any] = {"rows": len(rows), "digest": digest_rows(rows)}
        if self._data is not None:
            told["path"] = redact(str(self._data))
        else:
            told["samples"] = _kept(rows)
        self._draft = {
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "team": _team(system),
            "data": DataRecord(**told),
            "arguments": request.options,
            "versions": versions(),
            "hardware": plain(hardware()),
        }
        _refuse_secrets(self._draft)
        check_writable(self.path)

    def end(self, result: RunResult) -> RunManifest:
        """Write the manifest with the outcome."""
        answers = answers_of(result)
        scores = {} if self._score is None else plain(self._score(result))
        manifest = RunManifest(
            **self._draft,
            seconds=round(result.seconds, 3),
            answers=answers,
            digest=_digest(answers),
            scores=scores,
        )
        manifest.save(self.path)
        return manifest


_NAMED = {
    "edit_message": "edit_message",
    "executor": "an executor object",
    "retry": "a Retry object",
}
"""Arguments that a file cannot hold → their names in the message."""


def _check_repeatable(system: System, request: RunRequest) -> None:
    if system.taps.edits:
        raise LatentMASError(
            f"LM512 a run with a tap that edits {system.taps.edits[0]} cannot be repeated from a "
            "file; remove the tap, or omit manifest"
        )
    for name in request.objects:
        instead = "" if name == "edit_message" else "give its name, or "
        raise LatentMASError(
            f"LM512 a run with {_NAMED[name]} cannot be repeated from a file; {instead}omit "
            "manifest"
        )


def _kept(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples, checked for storage in the manifest.

    Raises:
        DataError: LM512 when JSON cannot represent them.
    """
    try:
        json.dumps(rows, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise DataError(
            f"LM512 these samples cannot be stored in a manifest: {error}; use plain values"
        ) from error
    return rows


def _refuse_secrets(draft: Mapping[str, Any]) -> None:
    """Raise LM513 if a prompt, a sample or an argument contains a secret."""
    for name in ("team", "data", "arguments"):
        found = secrets_in(draft[name].model_dump_json())
        if found:
            raise LatentMASError(
                f"LM513 the {name} of the run would put a secret ({found[0]}) into the manifest; "
                "remove the secret, or omit manifest"
            )


def _team(system: System) -> TeamRecord:
    plan = system.plan
    agent_backbones = {agent.name: system.backbone_of(agent.name) for agent in plan.graph.agents}
    source = system.origin.source
    return TeamRecord(
        source=None if source is None else redact(source),
        revision=system.origin.revision,
        seed=system.origin.seed,
        digest=plan.digest,
        links=link_digests(system),
        graph=plan.graph,
        facts={key: backbone.info for key, backbone in plan.backbones.items()},
        commits=system.commits(),
        devices={name: str(backbone.device) for name, backbone in agent_backbones.items()},
        dtypes={
            n: str(backbone.dtype).removeprefix("torch.") for n, backbone in agent_backbones.items()
        },
    )


def answers_of(result: RunResult) -> tuple[Answer, ...]:
    """Token ids and text digests of all answers."""
    return tuple(
        Answer(tokens=tuple(map(tuple, ids)), texts=tuple(map(digest_text, texts)))
        for ids, texts in zip(result.sequence_ids, result.sequences, strict=True)
    )


def _digest(answers: Sequence[Answer]) -> str:
    return digest_text(canonical_json([answer.model_dump(mode="json") for answer in answers]))
