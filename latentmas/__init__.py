"""Latent multi-agent systems: frozen language models that hand each other hidden states.

The method is RecursiveMAS (arXiv 2604.25917).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from latentmas import templates
from latentmas.errors import (
    DataError,
    ExecutionError,
    GraphError,
    LatentMASError,
    PlanError,
    Problem,
    TrainingInterrupted,
    UnknownNameError,
    WeightsError,
)
from latentmas.plan import (
    AdapterInfo,
    BackboneCosts,
    BackboneInfo,
    Plan,
    QuantizedCosts,
    RunOptions,
)
from latentmas.spec import Backbone, Graph, GraphSpec, LoRA, Quantization, prompt_file

if TYPE_CHECKING:
    from latentmas.cost import Explanation, Hardware
    from latentmas.evaluation import RayEngine, TorchrunEngine
    from latentmas.evaluation.evaluate import evaluate
    from latentmas.interop import load_release
    from latentmas.io import (
        Comparison,
        LinkReport,
        TeamDifference,
        TeamReport,
        diff_teams,
        inspect_team,
        rerun,
    )
    from latentmas.links import Link, link_kinds
    from latentmas.runtime import RunResult, Score, System
    from latentmas.training import (
        EdgeConfig,
        EdgeTrainer,
        InnerConfig,
        InnerTrainer,
        OuterConfig,
        OuterTrainer,
        RolloutConfig,
        RolloutTrainer,
        train,
    )
    from latentmas.viz import training_report

__version__ = "0.2.0"

# Names that need torch are imported when first used, so that `import latentmas` stays light.
_LAZY = {
    "Comparison": "latentmas.io",
    "EdgeConfig": "latentmas.training",
    "EdgeTrainer": "latentmas.training",
    "Explanation": "latentmas.cost",
    "evaluate": "latentmas.evaluation",
    "Hardware": "latentmas.cost",
    "InnerConfig": "latentmas.training",
    "InnerTrainer": "latentmas.training",
    "Link": "latentmas.links",
    "LinkReport": "latentmas.io",
    "OuterConfig": "latentmas.training",
    "OuterTrainer": "latentmas.training",
    "RayEngine": "latentmas.evaluation",
    "RolloutConfig": "latentmas.training",
    "RolloutTrainer": "latentmas.training",
    "RunResult": "latentmas.runtime",
    "Score": "latentmas.runtime",
    "System": "latentmas.runtime",
    "TeamDifference": "latentmas.io",
    "TeamReport": "latentmas.io",
    "TorchrunEngine": "latentmas.evaluation",
    "diff_teams": "latentmas.io",
    "inspect_team": "latentmas.io",
    "link_kinds": "latentmas.links",
    "load_release": "latentmas.interop",
    "rerun": "latentmas.io",
    "train": "latentmas.training",
    "training_report": "latentmas.viz",
}

__all__ = [
    "AdapterInfo",
    "Backbone",
    "BackboneCosts",
    "BackboneInfo",
    "Comparison",
    "DataError",
    "diff_teams",
    "EdgeConfig",
    "EdgeTrainer",
    "evaluate",
    "ExecutionError",
    "Explanation",
    "Graph",
    "GraphError",
    "GraphSpec",
    "Hardware",
    "InnerConfig",
    "InnerTrainer",
    "inspect_team",
    "LatentMASError",
    "Link",
    "link_kinds",
    "LinkReport",
    "load_release",
    "LoRA",
    "OuterConfig",
    "OuterTrainer",
    "Plan",
    "PlanError",
    "Problem",
    "prompt_file",
    "Quantization",
    "QuantizedCosts",
    "RayEngine",
    "rerun",
    "RolloutConfig",
    "RolloutTrainer",
    "RunOptions",
    "RunResult",
    "Score",
    "System",
    "TeamDifference",
    "TeamReport",
    "templates",
    "TorchrunEngine",
    "train",
    "training_report",
    "TrainingInterrupted",
    "UnknownNameError",
    "WeightsError",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
