"""Where the cells of a study come from: a graph, whose links start new, or a saved team."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.io import load_link_weights, read_history, read_manifest, read_steadily
from latentmas.plan import Plan
from latentmas.runtime import System, TrainingRecord
from latentmas.spec import Graph, GraphSpec

__all__ = ["Origin", "SavedOrigin", "open_origin"]


class Origin:
    """A graph, whose links start with a seed of each cell's own."""

    history: Sequence[TrainingRecord] = ()
    """Trainings that the links have had."""

    def __init__(self, graph: Graph) -> None:
        """Take a graph.

        Args:
            graph: The declared team.
        """
        self.graph = graph
        self.spec: GraphSpec = graph.spec()

    def facts(self) -> dict[str, Any]:
        """What results depend on besides the plan, as plain data."""
        return {}

    def compile(self, changes: Mapping[str, Any]) -> Plan:
        """The plan of the graph with some fields changed.

        Raises:
            LatentMASError: the changed graph cannot be compiled, or cannot be made of this team.
        """
        return self.graph.replace(**changes).compile(tools_at_load=False)

    def load(self, plan: Plan, seed: int, reuse: System | None, **where: Any) -> System:
        """A system for a plan.

        Args:
            plan: Plan that `compile` returned.
            seed: Random seed of the links.
            reuse: System whose backbones are shared where they are equal.
            **where: Devices, as `Plan.load` takes them.
        """
        return plan.load(seed=seed, reuse=reuse, **where)


class SavedOrigin(Origin):
    """A saved team, whose trained links every cell starts with."""

    def __init__(self, folder: Path, *, trust_remote_code: bool = False) -> None:
        """Read a saved team, without its weights.

        Args:
            folder: Folder of the team.
            trust_remote_code: Accept a team whose backbones run code from their repositories.

        Raises:
            WeightsError: the folder does not hold a saved team.
        """
        self.folder = folder
        self._manifest, self._plan = read_steadily(
            lambda: read_manifest(folder, trust_remote_code=trust_remote_code), folder
        )
        super().__init__(Graph.from_spec(self._plan.graph))
        self.history = read_history(folder)

    def facts(self) -> dict[str, Any]:
        """Digests of the saved weights."""
        return {"weights": self._manifest.weights, "adapters": self._manifest.adapter_weights}

    def compile(self, changes: Mapping[str, Any]) -> Plan:
        """As `Origin.compile`; the links must stay as they were saved."""
        plan = super().compile(changes)
        if _table(plan) != _table(self._plan):
            raise LatentMASError(
                f"{str(self.folder)!r} is a saved team, whose links cannot change; vary what its "
                "links do not depend on, or give the graph file"
            )
        return plan

    def load(self, plan: Plan, seed: int, reuse: System | None, **where: Any) -> System:
        """As `Origin.load`, with the saved weights."""
        commits = self._manifest.commits
        system = System.load(plan, seed=seed, reuse=reuse, start=False, commits=commits, **where)
        load_link_weights(system, self.folder)
        system.history = list(self.history)
        return system


def open_origin(team: Graph | str | Path, *, trust_remote_code: bool = False) -> Origin:
    """What cells are made of.

    Args:
        team: A graph, a graph file, or the folder of a saved team.
        trust_remote_code: Accept files that request code from a model's repository.

    Raises:
        TypeError: it is something else.
        LatentMASError: it cannot be read.
    """
    if isinstance(team, Graph):
        return Origin(team)
    if not isinstance(team, str | Path):
        raise TypeError(
            f"sweep takes a Graph, a graph file or the folder of a saved team, found {team!r:.60}; "
            "save a system with system.save_pretrained(folder)"
        )
    path = Path(team)
    folder = path.parent if path.name == "latentmas.json" and path.is_file() else path
    if folder.is_dir():
        return SavedOrigin(folder, trust_remote_code=trust_remote_code)
    return Origin(Graph.load(path, trust_remote_code=trust_remote_code))


def _table(plan: Plan) -> list[tuple[Any, ...]]:
    """What the weights of links depend on."""
    return [
        (link.id, link.kind, dict(link.options), link.in_dim, link.out_dim, link.users)
        for link in plan.links
    ]
