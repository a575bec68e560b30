"""Save and load individual links: to a file, from a file, or from another team."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from latentmas.errors import DataError, UnknownNameError, WeightsError
from latentmas.io._format import HEADER, VERSION, read_manifest
from latentmas.io._hub import find_team
from latentmas.io._newer import is_newer, say_left_out, without_unknown
from latentmas.io.load import check_links, read_links
from latentmas.io.save import links_header, refuse_secrets
from latentmas.io.storage.steady import read_steadily
from latentmas.io.weights.tensors import save_tensors
from latentmas.plan import LinkPlan
from latentmas.runtime import System
from latentmas.safe_data import parse_json, read_header

__all__ = ["LinkReport", "load_links", "save_links"]

GROUPS = ("inner", "outer", "all")
SUFFIX = ".safetensors"
_UNREADABLE = (*(SafetensorError, OSError, ValueError, TypeError, RecursionError, ValidationError),)


@dataclass(frozen=True)
class LinkReport:
    """Result of `load_links`."""

    taken: dict[str, str]
    """Links that were loaded: id in this team → id in the source."""
    left: dict[str, str]
    """Links that were left unchanged: id in this team → reason."""
    unused: tuple[str, ...]
    """Ids in the source that were not used."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"taken": self.taken, "left": self.left, "unused": list(self.unused)}

    def __str__(self) -> str:
        """The report as text, one line per link."""
        lines = [
            f"taken   {here}" + ("" if here == there else f"  from {there}")
            for here, there in self.taken.items()
        ]
        lines += [f"left    {here}: {why}" for here, why in self.left.items()]
        lines += [f"unused  {there}" for there in self.unused]
        count = len(self.taken) + len(self.left)
        return "\n".join([f"took {len(self.taken)} of {count} links", *lines])


def save_links(system: System, path: str | Path, *, only: str | Sequence[str] = "all") -> Path:
    """Save selected links to one file, atomically; see `System.save_links` for the arguments.

    Raises:
        UnknownNameError: a name is not a link, agent or edge.
        DataError: the file name does not end in `.safetensors`, or the file cannot be written.
        LatentMASError: LM513 when a prompt contains a secret.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise DataError(f"links are saved to a file that ends in {SUFFIX}, not to {path.name!r}")
    ids = find_links(system.plan.links, only)
    refuse_secrets(system.plan)
    prefixes = tuple(f"{id}." for id in ids)
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in system.link_state().items()
        if name.startswith(prefixes)
    }
    header = links_header(system.plan, [system.plan.link(id) for id in ids])
    save_tensors(state, path, header)
    return path


def load_links(
    system: System,
    source: str | Path | System,
    *,
    only: str | Sequence[str] = "all",
    rename: Mapping[str, str] | None = None,
    strict: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> LinkReport:
    """Load links whose names, kinds and widths match; see `System.load_links` for the arguments.

    Raises:
        UnknownNameError: a name in `only` or `rename` is not a link, agent or edge.
        WeightsError: LM502 or LM503 when the source cannot be read or its weights are damaged; with
            `strict`, LM501 when a link cannot be loaded. The system is left unchanged.
    """
    table, state = _read(source, revision, token)
    there = {link.id: link for link in table}
    names = {
        here: partner
        for a, b in (rename or {}).items()
        for here, partner in _pairs(system.plan.links, a, table, b)
    }
    wanted = find_links(system.plan.links, only)
    taken, left = {}, {}
    for here in wanted:
        partner = names.get(here, here)
        why = _mismatch(system.plan.link(here), there.get(partner), partner)
        if why:
            left[here] = why
        else:
            taken[here] = partner
    unused = tuple(id for id in there if id not in taken.values())
    report = LinkReport(taken, left, unused)
    if strict and left:
        raise WeightsError(f"LM501 some links cannot be loaded:\n{report}")
    _fill(system, state, taken)
    return report


def find_links(links: Iterable[LinkPlan], names: str | Sequence[str]) -> list[str]:
    """Ids of the links that groups, ids, agents or edges name, in plan order.

    Raises:
        UnknownNameError: a name is not a group, link, agent or edge.
    """
    links = list(links)
    chosen: set[str] = set()
    for name in [names] if isinstance(names, str) else names:
        found = [link.id for link in links if _is_called(link, name)]
        if not found and name not in GROUPS:
            known = [user for link in links for user in (link.id, *link.users)]
            raise UnknownNameError("link", name, dict.fromkeys([*GROUPS, *known]))
        chosen |= set(found)
    return [link.id for link in links if link.id in chosen]


def _is_called(link: LinkPlan, name: str) -> bool:
    if name in ("all", link.role, link.id) or name in link.users:
        return True
    return "->" in name and any(user.rpartition(".")[0] == name for user in link.users)


def _pairs(
    here: Sequence[LinkPlan], a: str, there: Sequence[LinkPlan], b: str
) -> list[tuple[str, str]]:
    ours, theirs = find_links(here, a), find_links(there, b)
    if len(ours) != len(theirs):
        raise UnknownNameError(f"pair of links: {a!r} names {len(ours)} here,", b, theirs)
    return list(zip(ours, theirs, strict=True))


def _mismatch(here: LinkPlan, there: LinkPlan | None, name: str) -> str:
    """Reason why a link's weights cannot be loaded; empty if they can."""
    if here.n_parameters == 0:
        return f"kind {here.kind} has no weights"
    if there is None:
        return f"the source has no {name}"
    if (here.in_dim, here.out_dim) != (there.in_dim, there.out_dim):
        widths = f"widths {there.in_dim} → {there.out_dim}"
        return f"{name} has {widths}, here {here.in_dim} → {here.out_dim}"
    if here.kind != there.kind:
        return f"{name} is of kind {there.kind}, here {here.kind}"
    if here.options != there.options:
        return f"{name} has options {there.options}, here {here.options}"
    return ""


def _read(
    source: str | Path | System, revision: str | None, token: str | None
) -> tuple[Sequence[LinkPlan], Mapping[str, Tensor]]:
    """Read the links of a source and their weights."""
    if isinstance(source, System):
        state = {name: tensor.clone() for name, tensor in source.link_state().items()}
        return source.plan.links, state
    if Path(source).suffix == SUFFIX:
        return _read_file(Path(source))
    if Path(source).is_file():
        raise WeightsError(
            f"LM502 {str(source)!r} holds no links: give the folder of a saved team, a repository "
            f"on the Hub (owner/name), or a file that save_links wrote ({SUFFIX})"
        )
    folder = find_team(source, revision=revision, token=token).folder
    return read_steadily(lambda: _read_folder(folder), folder)


def _read_folder(folder: Path) -> tuple[Sequence[LinkPlan], Mapping[str, Tensor]]:
    # Trust is safe here: no code of the repositories runs.
    manifest, _ = read_manifest(folder, trust_remote_code=True)
    return manifest.links, read_links(folder)


def _read_file(path: Path) -> tuple[Sequence[LinkPlan], Mapping[str, Tensor]]:
    try:
        told = parse_json(read_header(path).metadata.get(HEADER, "null"))
        with safe_open(path, "pt") as file:
            if not isinstance(told, dict) or told.get("format") != "latentmas-links":
                raise WeightsError(f"LM502 {path} is not marked as a file of links")
            table = _table(path, told)
            return table, {name: file.get_tensor(name) for name in list(file.keys())}
    except FileNotFoundError as error:
        raise WeightsError(f"LM502 file {str(path)!r} does not exist") from error
    except _UNREADABLE as error:
        raise WeightsError(f"LM503 {path} cannot be read: {error}") from error


def _table(path: Path, told: dict[str, Any]) -> list[LinkPlan]:
    """The link table in a file's metadata; newer files may have fields that are unknown here."""
    table = told.get("links")
    if is_newer(told, VERSION) and isinstance(table, list):
        known = [without_unknown(LinkPlan, link) for link in table]
        table = [link for link, _ in known]
        names = dict.fromkeys(f"links.{name}" for _, more in known for name in more)
        if names:
            say_left_out(str(path), told, list(names))
    return TypeAdapter(list[LinkPlan]).validate_python(table)


@torch.no_grad()
def _fill(system: System, state: Mapping[str, Tensor], taken: Mapping[str, str]) -> None:
    """Copy all the weights, or none if one does not fit."""
    wanted: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    for here, there in taken.items():
        for name, tensor in system.link(here).state_dict().items():
            wanted[f"{here}.{name}"] = tensor
            if f"{there}.{name}" in state:
                found[f"{here}.{name}"] = state[f"{there}.{name}"]
    check_links(wanted, found, exactly=False)
    for name, tensor in wanted.items():
        tensor.copy_(found[name])
