"""`inspect_team`: describe and check a saved team without loading a model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from latentmas.errors import WeightsError
from latentmas.io._format import LARGEST_MANIFEST, Manifest
from latentmas.io.storage.folder import LINKS, MANIFEST, part, part_names
from latentmas.io.storage.steady import read_steadily
from latentmas.io.weights.adapter_facts import AdapterFacts, adapter_facts, adapter_problems
from latentmas.io.weights.links import measure
from latentmas.plan import LinkPlan
from latentmas.safe_data import Entry, Header, inside, read_header, read_json

__all__ = ["BackboneFacts", "LinkFacts", "TeamReport", "inspect_team", "link_entries"]

LARGEST_RECORD = 64 * 2**20


@dataclass(frozen=True)
class LinkFacts:
    """One link of a saved team."""

    id: str
    role: str
    kind: str
    in_dim: int
    out_dim: int
    parameters: int
    """Number of weights in the file."""
    bytes: int
    dtype: str
    """Data type in the file, such as `F32`; several are separated by commas."""
    norm: float
    """Root of the sum of squares of all its weights."""
    finite: bool


@dataclass(frozen=True)
class BackboneFacts:
    """A base model of a saved team."""

    key: str
    source: str
    revision: str | None
    """The declared branch, tag or commit."""
    commit: str | None
    """Commit on the Hub that it was loaded from."""
    model_type: str
    width: int
    agents: tuple[str, ...]
    adapter: str | None = None
    """Folder or repository of its adapter."""


@dataclass(frozen=True)
class TeamReport:
    """Description of a saved team, and its problems."""

    source: str
    """Folder or repository of the team."""
    revision: str | None
    """Commit on the Hub; None for a local folder."""
    name: str
    """Name of the graph."""
    format: int
    """Version of the file format."""
    latentmas: str
    """Version of latentmas that wrote it."""
    digest: str
    """Digest of its plan, as recorded in the manifest."""
    backbones: tuple[BackboneFacts, ...]
    """Backbones of the team."""
    links: tuple[LinkFacts, ...]
    """Links of the team."""
    trainings: tuple[Mapping[str, Any], ...]
    """Loop, steps, seed, time, and number and digest of the rows of each training, oldest first."""
    problems: tuple[str, ...]
    """Problems that prevent loading, as far as the files show them."""
    adapters: tuple[AdapterFacts, ...] = ()
    """Adapters of agents' own."""

    @property
    def parameters(self) -> int:
        """Number of weights of all links."""
        return sum(link.parameters for link in self.links)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"parameters": self.parameters}

    def __str__(self) -> str:
        """The report as text, with a few lines per section."""
        return "\n".join(_lines(self))


def inspect_team(
    source: str | Path, *, revision: str | None = None, token: str | None = None
) -> TeamReport:
    """Describe a saved team: its links with sizes and norms, base models, trainings and digest.

    Only the team's own files are read, and neither backbones nor model configurations. A local
    folder is inspected without importing torch.

    Args:
        source: a folder, or a repository on the Hub.
        revision: branch, tag or commit of that repository.
        token: Hub access token.

    Returns:
        The report. Its `problems` include weights that are missing or not finite.

    Raises:
        WeightsError: LM502 when it is not a saved team, LM503 when its weights cannot be read at
            all, LM511 when it cannot be downloaded.
    """
    folder, commit = Path(source), None
    if not folder.is_dir():
        from latentmas.io._hub import find_team

        found = find_team(source, revision=revision, token=token)
        folder, commit = found.folder, found.revision
    return read_steadily(lambda: _report(folder, str(source), commit), folder)


def _report(folder: Path, source: str, commit: str | None) -> TeamReport:
    manifest = _manifest(folder)
    path = part(folder, LINKS)
    if not path.is_file() or not inside(folder, path):
        raise WeightsError(f"LM502 {str(folder)!r} is not a complete team: it lacks {LINKS}")
    header = read_header(path)
    links = tuple(_facts(path, link, header) for link in manifest.links)
    adapters = tuple(adapter_facts(folder, manifest))
    problems = _problems(manifest, header, links, path)
    return TeamReport(
        source=source,
        revision=commit,
        name=str(manifest.graph.get("name", "team")),
        format=manifest.version,
        latentmas=manifest.latentmas,
        digest=manifest.digest,
        backbones=tuple(_backbones(manifest)),
        links=links,
        trainings=tuple(_trainings(folder)),
        problems=(*problems, *adapter_problems(folder, manifest, adapters)),
        adapters=adapters,
    )


def link_entries(header: Header, id: str) -> dict[str, Entry]:
    """Tensors of one link by their names within the link, sorted."""
    prefix = f"{id}."
    names = sorted(name for name in header.entries if name.startswith(prefix))
    return {name.removeprefix(prefix): header.entries[name] for name in names}


def _manifest(folder: Path) -> Manifest:
    path = part(folder, MANIFEST)
    if not inside(folder, path):
        raise WeightsError(f"LM502 {MANIFEST} points outside the folder {str(folder)!r}")
    try:
        return Manifest.model_validate(read_json(path, LARGEST_MANIFEST))
    except FileNotFoundError as error:
        raise WeightsError(f"LM502 {str(folder)!r} is not a saved team: it lacks {path}") from error
    except (OSError, ValidationError) as error:
        raise WeightsError(f"LM502 {path} cannot be read: {error}") from error


def _facts(path: Path, link: LinkPlan, header: Header) -> LinkFacts:
    entries = list(link_entries(header, link.id).values())
    found = measure(path, entries)
    return LinkFacts(
        id=link.id,
        role=link.role,
        kind=link.kind,
        in_dim=link.in_dim,
        out_dim=link.out_dim,
        parameters=sum(entry.size for entry in entries),
        bytes=sum(entry.end - entry.start for entry in entries),
        dtype=", ".join(dict.fromkeys(entry.dtype for entry in entries)),
        norm=found.norm,
        finite=found.finite,
    )


def _backbones(manifest: Manifest) -> Iterator[BackboneFacts]:
    declared = manifest.graph.get("backbones")
    agents = manifest.graph.get("agents")
    for key, info in manifest.facts.items():
        spec = declared.get(key) if isinstance(declared, dict) else None
        spec = spec if isinstance(spec, dict) else {}
        revision, adapter = spec.get("revision"), spec.get("adapter")
        yield BackboneFacts(
            key=key,
            source=str(spec.get("source", "?")),
            revision=None if revision is None else str(revision),
            commit=manifest.commits.get(key),
            model_type=info.model_type,
            width=info.hidden_size,
            agents=tuple(_agents_on(key, agents)),
            adapter=None if adapter is None else str(adapter),
        )


def _agents_on(key: str, agents: Any) -> Iterator[str]:
    for agent in agents if isinstance(agents, list) else []:
        if isinstance(agent, dict) and agent.get("backbone") == key:
            yield str(agent.get("name", "?"))


def _trainings(folder: Path) -> Iterator[dict[str, Any]]:
    """Summaries of `training/1-inner/manifest.json`, …, in order."""
    names = [name for name in part_names(folder, "training") if name.endswith("/manifest.json")]
    for name in sorted(names, key=lambda name: int(name.split("/")[1].partition("-")[0])):
        path = part(folder, name)
        if not inside(folder, path):
            raise WeightsError(f"LM502 {name!r} points outside the folder {str(folder)!r}")
        told = read_json(path, LARGEST_RECORD, numbers="nan")
        told = told if isinstance(told, dict) else {}
        data = told.get("data")
        data = data if isinstance(data, dict) else {}
        yield {
            "loop": name.split("/")[1].partition("-")[2],
            **{key: told.get(key) for key in ("steps", "seed", "began", "seconds", "links")},
            "rows": data.get("rows"),
            "data_digest": data.get("digest"),
        }


def _problems(
    manifest: Manifest, header: Header, links: Sequence[LinkFacts], path: Path
) -> Iterator[str]:
    for planned, found in zip(manifest.links, links, strict=True):
        if found.parameters != planned.n_parameters:
            yield (
                f"link {found.id}: {found.parameters:,} weights in the file, "
                f"{planned.n_parameters:,} in the manifest"
            )
        if not found.finite:
            yield f"link {found.id}: holds values that are not finite"
    known = tuple(f"{link.id}." for link in links)
    for name in header.entries:
        if not name.startswith(known):
            yield f"{name:.200}: does not belong to a link"
    if manifest.weights is not None and manifest.weights != _digest(path):
        yield f"{LINKS}: its SHA-256 differs from the one in {MANIFEST}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- as text ------------------------------------------------------------------------------------


def _lines(report: TeamReport) -> Iterator[str]:
    commit = f" at {report.revision[:12]}" if report.revision else ""
    yield f"{report.name}: {report.source}{commit}"
    yield (
        f"format {report.format}, written by latentmas {report.latentmas}, "
        f"digest {report.digest[:12]}"
    )
    yield "backbones"
    yield from _table(
        (_named(b), _version_of(b), b.model_type, f"width {b.width}", ", ".join(b.agents))
        for b in report.backbones
    )
    size = sum(link.bytes for link in report.links)
    yield f"links: {report.parameters:,} weights, {size:,} bytes"
    yield from _table(
        (
            *(link.id, link.kind, f"{link.in_dim} → {link.out_dim}"),
            *(f"{link.parameters:,}", link.dtype or "-", _norm(link)),
        )
        for link in report.links
    )
    if report.adapters:
        yield f"adapters: {sum(one.parameters for one in report.adapters):,} weights"
        yield from _table(
            (one.agent, f"rank {one.r}", f"{one.parameters:,}", f"norm {one.norm:.6g}")
            for one in report.adapters
        )
    yield "trained" if report.trainings else "trained: no record"
    yield from _table(
        (
            *(str(t["loop"]), f"{t['steps']} steps", f"seed {t['seed']}"),
            *(f"{t['rows']} rows {str(t['data_digest'])[:12]}", str(t["began"])),
        )
        for t in report.trainings
    )
    yield from (
        ("problems", *(f"  {line}" for line in report.problems)) if report.problems else ("sound",)
    )


def _named(backbone: BackboneFacts) -> str:
    return backbone.source + (f" with {backbone.adapter}" if backbone.adapter else "")


def _version_of(backbone: BackboneFacts) -> str:
    return (backbone.commit or "")[:12] or backbone.revision or "-"


def _norm(link: LinkFacts) -> str:
    if not link.finite:
        return "not finite"
    return f"norm {link.norm:.6g}" if math.isfinite(link.norm) else "norm beyond fp64"


def _table(rows: Any) -> Iterator[str]:
    rows = [tuple(" ".join(cell.split()) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(map(str.ljust, row, widths)).rstrip()
