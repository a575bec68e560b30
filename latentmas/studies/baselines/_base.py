"""What a baseline is: its options, what it needs, the graph that it runs, and how it is made."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from latentmas.plan import Plan, RunOptions
from latentmas.runtime import System
from latentmas.spec import Graph

__all__ = [
    "Baseline",
    "BaselineJob",
    "BaselineOptions",
    "Budget",
    "Effort",
    "MadeBaseline",
    "count_parameters",
    "load_alone",
]

Row = Mapping[str, Any]


class BaselineOptions(BaseModel):
    """Options of a baseline; subclasses add fields with defaults. Unknown options are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Budget:
    """What a baseline may spend on training, the same for every baseline that trains."""

    max_steps: int = 100
    """Number of optimizer steps."""
    batch_size: int = 16
    """Number of rows per step."""
    learning_rate: float | None = None
    """Peak learning rate. None: the default of the baseline. Everything else is the same for all:
    AdamW with betas 0.9 and 0.95, no weight decay, 5 % of the steps to warm up, then a cosine."""


@dataclass(frozen=True)
class Effort:
    """What a system's training took."""

    trained_parameters: int = 0
    """Number of weights that were trained."""
    parameters: int = 0
    """Number of all weights of the system, those of each model once."""
    steps: int = 0
    """Number of optimizer steps."""
    rows: int = 0
    """Number of training rows seen, a row once for each time it was seen."""
    tokens: int | None = 0
    """Number of tokens in these rows, prompts and answers; the mean row's length times their
    number. None: unknown."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class BaselineJob:
    """What a baseline is made from."""

    team: System
    """The loaded team, whose backbones it shares."""
    train_rows: Sequence[Row]
    """Training rows; empty for a baseline that does not train."""
    folder: Path
    """Folder for logs, checkpoints and weights."""
    budget: Budget
    """Steps and rows of its training."""
    answer_field: str
    """Field of a row with the answer."""
    seed: int
    """Random seed of its training."""
    run_options: RunOptions
    """Options of the runs in the evaluation."""
    grader: Any = "exact"
    """Grader of the evaluation."""
    progress: bool = False
    """Whether trainers show their progress on stderr."""


@dataclass(frozen=True)
class MadeBaseline:
    """A baseline that is ready to be evaluated."""

    system: System
    """The system."""
    effort: Effort
    """What its training took."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further facts, as plain data: the rank of an adapter, a prompt that was found."""


class Baseline(ABC):
    """A system to compare a team with. Options are fields of `Options`."""

    summary: ClassVar[str] = ""
    """One line for listings."""
    trains: ClassVar[bool] = False
    """Whether it is made from training rows, once for each seed."""
    packages: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Optional packages that it needs: module → extra that installs it."""
    Options: ClassVar[type[BaselineOptions]] = BaselineOptions
    """Its options."""
    name: str = ""
    """Registered name."""

    def __init__(self, options: Any) -> None:
        self.options: Any = options
        """Its options, an instance of `Options`."""

    @abstractmethod
    def graph(self, plan: Plan) -> Graph:
        """What it runs, declared before training; no weights are loaded.

        Args:
            plan: Plan of the team.

        Raises:
            LatentMASError: It cannot be made from this team.
        """

    def problems(self, plan: Plan) -> Iterator[str]:
        """What keeps it from being made, found without weights; all at once.

        Args:
            plan: Plan of the team.
        """
        for module, extra in self.packages.items():
            if importlib.util.find_spec(module) is None:
                yield (
                    f"baseline {self.name!r} needs the package {module}, which is not installed; "
                    f"install it with: pip install 'latentmas[{extra}]'"
                )

    def make(self, job: BaselineJob) -> MadeBaseline:
        """The system to evaluate; one that trains continues where it was stopped.

        Args:
            job: What it is made from.
        """
        system = load_alone(job.team, self.graph(job.team.plan))
        return MadeBaseline(system, Effort(parameters=count_parameters(system)))


def load_alone(team: System, graph: Graph) -> System:
    """Load a graph on a team's backbones, without what the team's agents have learned.

    Args:
        team: System whose backbones, tools and text functions are shared.
        graph: Graph to load; backbones that the team lacks are loaded from their sources, on the
            device of the team's output agent.

    Raises:
        GraphError: The graph has problems.
        WeightsError: A backbone cannot be loaded.
    """
    facts = {key: backbone.info for key, backbone in team.plan.backbones.items()}
    specs = {key: backbone.spec for key, backbone in team.plan.backbones.items()}
    same = {k: facts[k] for k, spec in graph.spec().backbones.items() if specs.get(k) == spec}
    plan = graph.compile(facts=same).with_functions(
        text_functions=team.text_functions, tools=team.tools
    )
    device = str(team.backbone_of(team.plan.output).device)
    shared = {planned.spec for planned in team.plan.backbones.values()}
    new = {
        agent: device
        for planned in plan.backbones.values()
        for agent in planned.agents
        if planned.spec not in shared
    }
    return plan.load(device=new or None, executor=team.executor, reuse=team)


def count_parameters(system: System) -> int:
    """Number of weights of a system: links, adapters, and each model once."""
    models = {
        id(base.model): base.model
        for base in (one.base or one for one in system.agent_backbones.values())
    }
    weights = {
        id(weight): weight.numel() for model in models.values() for weight in model.parameters()
    }
    return sum(weights.values()) + sum(weight.numel() for weight in system.parameters())
