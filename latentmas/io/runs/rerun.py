"""`rerun`: repeat a run from its manifest and compare the two token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentmas.compiler import compile_graph
from latentmas.environment import hardware, versions
from latentmas.errors import DataError, WeightsError
from latentmas.io._digest import digest_rows, link_digests
from latentmas.io._format import compile_known
from latentmas.io._training import plain
from latentmas.io.load import facts_at, load_system
from latentmas.io.runs.manifest import Answer, DataRecord, RunManifest, TeamRecord
from latentmas.io.runs.recorder import RunRecorder, answers_of
from latentmas.runtime import System, merge_options
from latentmas.spec import ALLOW, TextFunction, code_wanted, read_jsonl
from latentmas.tools import Tool

__all__ = ["Comparison", "rerun"]


@dataclass(frozen=True)
class Comparison:
    """Comparison of a repeated run with the run that its manifest recorded."""

    equal: bool
    """Whether both runs gave the same tokens."""
    samples: int
    """Number of samples."""
    tokens: int
    """Number of equal tokens before the first difference."""
    difference: str
    """The first difference, with its sample and token; empty if there is none."""
    environment: dict[str, tuple[Any, Any]]
    """Versions and hardware that have changed: name → (then, now)."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        told = {"equal": self.equal, "samples": self.samples, "tokens": self.tokens}
        return told | {
            "difference": self.difference or None,
            "environment": {k: {"then": a, "now": b} for k, (a, b) in self.environment.items()},
        }

    def __str__(self) -> str:
        """The outcome, followed by the changes in the environment."""
        lines = [f"{name}: {a} then, {b} now" for name, (a, b) in self.environment.items()]
        if self.equal:
            return "\n".join([f"equal: {self.samples} samples, {self.tokens} tokens", *lines])
        return "\n".join([f"different: {self.difference}", *lines])


def rerun(
    manifest: str | Path | RunManifest,
    *,
    team: str | Path | System | None = None,
    data: str | Path | None = None,
    device: str | Mapping[str, str] | None = None,
    text_functions: Mapping[str, TextFunction] | None = None,
    tools: Mapping[str, Tool] | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
    save: str | Path | None = None,
    **changes: Any,
) -> Comparison:
    """Repeat the run that a manifest records and compare the two token by token.

    Args:
        manifest: the manifest, or the path of one that `System.run(…, manifest=…)` wrote.
        team: the team, or its folder or repository; None uses the recorded location.
        data: JSONL file with the samples; None uses the recorded file or samples.
        device: device of all agents, or a mapping by agent; None uses the recorded devices.
        text_functions: function of each text source, by name.
        tools: tools by name; they replace or add to the registered ones.
        token: Hub access token.
        trust_remote_code: allow backbones of the manifest's graph to run code from their
            repositories.
        save: path for the manifest of the new run; None writes none.
        **changes: options of `System.run` that differ from the recorded ones, such as
            `executor="reference"`.

    Raises:
        DataError: LM512 when the manifest cannot be read or the data differ.
        WeightsError: LM501 when the team is not the one that was run.
    """
    where = Path() if isinstance(manifest, RunManifest) else Path(manifest).parent
    told = manifest if isinstance(manifest, RunManifest) else RunManifest.load(manifest)
    merge_options("rerun", told.arguments, changes)
    samples = _samples(told.data, where, data)
    if not isinstance(team, System):
        options: dict[str, Any] = {"text_functions": text_functions, "tools": tools}
        options |= {"device": device or told.team.devices, "dtype": _dtype(told.team)}
        place = team or _found(told.team.source, where)
        if place is not None:
            revision = None if team else told.team.revision
            team = load_system(
                place,
                revision=revision,
                token=token,
                trust_remote_code=trust_remote_code,
                **options,
            )
        else:
            team = _from_graph(told.team, options, trust_remote_code)
    _check_team(told.team, team)
    recorder = None if save is None else RunRecorder(save, data=data or told.data.path)
    result = team.run(
        samples, manifest=recorder, options=told.arguments.replace(record=()), **changes
    )
    return _compare(told, answers_of(result))


def _found(source: str | None, where: Path) -> str | Path | None:
    """The team's location: the recorded path, or the same path relative to the manifest."""
    if source is None or Path(source).is_dir() or not (where / source).is_dir():
        return source
    return where / source


def _dtype(team: TeamRecord) -> str | None:
    """The dtype of all backbones; None if they differ."""
    types = set(team.dtypes.values())
    return types.pop() if len(types) == 1 else None


def _from_graph(team: TeamRecord, options: Mapping[str, Any], trust_remote_code: bool) -> System:
    """Build the team from the manifest's own graph, with links initialised from the same seed."""
    for key, what in code_wanted(team.graph.backbones).items():
        if not trust_remote_code:
            raise WeightsError(
                f"LM504 backbone {key!r} of the manifest asks to run {what}; {ALLOW}"
            )
    plan = compile_graph(team.graph, facts=facts_at(team.graph.backbones, team.commits))
    return System.load(plan, seed=team.seed, commits=team.commits, **options)


def _check_team(then: TeamRecord, now: System) -> None:
    """Raise LM501, listing the differences, if this is not the team of the manifest."""
    if then.digest != now.plan.digest:
        changes = compile_known(then.graph, then.facts).diff(now.plan)
        shown = "\n  ".join(changes or ["steps: compiled by a different version"])
        raise WeightsError(f"LM501 the team is not the one that was run:\n  {shown}")
    links = link_digests(now)
    others = [id for id in links if links[id] != then.links.get(id)]
    if others:
        hint = "" if then.source else "; it was trained but not saved: save it and pass it as team"
        raise WeightsError(
            f"LM501 the team is not the one that was run: the weights of {', '.join(others)} "
            f"differ{hint}"
        )


def _samples(told: DataRecord, where: Path, data: str | Path | None) -> list[dict[str, Any]]:
    """The samples of the manifest.

    Raises:
        DataError: LM512 when they cannot be read or have changed.
    """
    if data is None and told.path is None:
        rows = [dict(sample) for sample in told.samples or ()]
    else:
        path = Path(data or str(told.path))
        path = path if path.exists() or data is not None else where / path
        if data is None and path.exists() and not path.is_file():
            raise DataError(f"LM512 the data of the run, {str(path)!r}, are not a regular file")
        try:
            rows = read_jsonl(path).rows
        except DataError as error:
            raise DataError(
                f"LM512 the data of the run cannot be read: {error}; pass their file as data"
            ) from error
    found = digest_rows(rows)
    if (len(rows), found) != (told.rows, told.digest):
        raise DataError(
            f"LM512 the data have changed: {told.rows} rows with digest {told.digest[:12]} then, "
            f"{len(rows)} with {found[:12]} now"
        )
    return rows


def _compare(then: RunManifest, now: Sequence[Answer]) -> Comparison:
    around = {
        name: (then.versions.get(name), value)
        for name, value in versions().items()
        if then.versions.get(name) != value
    }
    machine = plain(hardware())
    around |= {
        name: (then.hardware.get(name), value)
        for name, value in machine.items()
        if then.hardware.get(name) != value
    }
    tokens, difference = _first_difference(then.answers, now)
    return Comparison(not difference, len(now), tokens, difference, around)


def _first_difference(then: Sequence[Answer], now: Sequence[Answer]) -> tuple[int, str]:
    """Number of equal tokens before the first difference, and its description."""
    tokens = 0
    for sample, (a, b) in enumerate(zip(then, now, strict=True)):
        for k, (old, new) in enumerate(zip(a.tokens, b.tokens, strict=True)):
            which = f"sample {sample}" + (f", answer {k}" if len(a.tokens) > 1 else "")
            for i, (x, y) in enumerate(zip(old, new, strict=False)):
                if x != y:
                    return tokens, f"{which}, token {i}: {x} then, {y} now"
                tokens += 1
            if len(old) != len(new):
                return tokens, f"{which}: {len(old)} tokens then, {len(new)} now, equal up to there"
            if a.texts[k] != b.texts[k]:
                return tokens, f"{which}: the same tokens, but different text"
    return tokens, ""
