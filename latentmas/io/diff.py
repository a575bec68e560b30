"""`diff_teams`: compare two saved teams without loading a model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentmas.errors import WeightsError
from latentmas.io.inspect import link_entries
from latentmas.io.storage.folder import LINKS, part
from latentmas.io.storage.steady import read_steadily
from latentmas.io.weights.adapter_facts import adapters_header
from latentmas.io.weights.links import distance, measure
from latentmas.safe_data import Header, inside, read_header

__all__ = ["LinkDifference", "TeamDifference", "diff_teams"]


@dataclass(frozen=True)
class LinkDifference:
    """Difference of one link, or of one agent's adapter, between two teams."""

    id: str
    """Id of the link; `"adapter.<agent>"` for an adapter."""
    state: str
    """`"same"`, `"changed"`, `"only in A"` or `"only in B"`."""
    relative: float | None = None
    """Norm of the difference over the norm in A, for a changed link of equal shapes."""
    detail: str = ""
    """Description of the difference, if no number expresses it."""

    def __str__(self) -> str:
        """The difference on one line."""
        size = "" if self.relative is None else f"  by {self.relative:.3g} of its norm"
        detail = f"  {self.detail}" if self.detail else ""
        return f"{self.state:<10} {self.id}{size}{detail}"


@dataclass(frozen=True)
class TeamDifference:
    """Differences between two teams."""

    a: str
    """Source of the first team."""
    b: str
    """Source of the second team."""
    plan: tuple[str, ...]
    """Differences of the plans, one per line."""
    links: tuple[LinkDifference, ...]
    """Every link of either team, and every adapter of an agent's own."""

    @property
    def equal(self) -> bool:
        """Whether plans and weights are the same."""
        return not self.plan and all(link.state == "same" for link in self.links)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"equal": self.equal}

    def __str__(self) -> str:
        """One line per difference of the plans and per link."""
        if self.equal:
            return f"equal: the same plan, {len(self.links)} links"
        plan = ["plan: the same"] if not self.plan else ["plan", *(f"  {x}" for x in self.plan)]
        return "\n".join([*plan, "links", *(f"  {link}" for link in self.links)])


def diff_teams(
    a: str | Path,
    b: str | Path,
    *,
    revision_a: str | None = None,
    revision_b: str | None = None,
    token: str | None = None,
) -> TeamDifference:
    """Compare two saved teams: their plans, and each link's weights.

    Args:
        a: folder of the first team, or its repository on the Hub.
        b: folder or repository of the second team.
        revision_a: branch, tag or commit of the first repository.
        revision_b: branch, tag or commit of the second repository.
        token: Hub access token.

    Raises:
        WeightsError: LM501 or LM502 when one is not a valid team, LM503 when its weights cannot be
            read, LM511 when it cannot be downloaded.
    """
    from latentmas.io._hub import find_team

    one, other = (
        find_team(source, revision=revision, token=token).folder
        for source, revision in ((a, revision_a), (b, revision_b))
    )
    plan, links = read_steadily(lambda: _compare(one, other), one, other)
    return TeamDifference(a=str(a), b=str(b), plan=plan, links=links)


def _compare(*folders: Path) -> tuple[tuple[str, ...], tuple[LinkDifference, ...]]:
    """Differences of the plans, and of each link."""
    from latentmas.io._format import read_manifest

    # No model is loaded, so a request for remote code can do no harm.
    read = [read_manifest(folder, trust_remote_code=True) for folder in folders]
    plans = [plan for _, plan in read]
    ids = dict.fromkeys(link.id for plan in plans for link in plan.links)
    a, b = (_links_file(folder) for folder in folders)
    links = [_difference(id, id, (a, read_header(a)), (b, read_header(b))) for id in ids]
    agents = dict.fromkeys(agent for manifest, _ in read for agent in manifest.adapters)
    one, other = (adapters_header(folder) for folder in folders)
    links += [_difference(f"adapter.{agent}", agent, one, other) for agent in agents]
    return tuple(plans[0].diff(plans[1])), tuple(links)


def _links_file(folder: Path) -> Path:
    path = part(folder, LINKS)
    if not path.is_file() or not inside(folder, path):
        raise WeightsError(f"LM502 {str(folder)!r} is not a complete team: it lacks {LINKS}")
    return path


def _difference(
    id: str, prefix: str, a: tuple[Path, Header | None], b: tuple[Path, Header | None]
) -> LinkDifference:
    """Compare the weights of one link, or of one agent's adapter, in two files."""
    ours, theirs = (link_entries(h, prefix) if h is not None else {} for _, h in (a, b))
    if not ours and not theirs:
        return LinkDifference(id, "same", detail="no weights")
    if not ours or not theirs:
        return LinkDifference(id, "only in A" if ours else "only in B")
    if {n: e.shape for n, e in ours.items()} != {n: e.shape for n, e in theirs.items()}:
        return LinkDifference(id, "changed", detail="names or shapes of the weights differ")
    mine, others = list(ours.values()), list(theirs.values())
    apart, norm = distance(a[0], mine, b[0], others), measure(a[0], mine).norm
    if apart == 0:
        return LinkDifference(id, "same")
    if math.isfinite(apart) and norm > 0:
        return LinkDifference(id, "changed", apart / norm)
    detail = "all zero in A" if norm == 0 else "holds values that are not finite"
    return LinkDifference(id, "changed", detail=detail)
