"""Latent multi-agent systems: frozen language models that hand each other hidden states.

The method is RecursiveMAS (arXiv 2604.25917).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentmas import templates
    from latentmas.cost import Explanation, Hardware
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
    from latentmas.plan import (
        AdapterInfo,
        BackboneCosts,
        BackboneInfo,
        Plan,
        QuantizedCosts,
        RunOptions,
    )
    from latentmas.runtime import RunResult, Score, System
    from latentmas.spec import Backbone, Graph, GraphSpec, LoRA, Quantization, prompt_file
    from latentmas.studies import analyse, measure_costs, run_baseline, sweep
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

# Names are imported when first used, so that `import latentmas` costs nothing by itself.
_LAZY = {
    "AdapterInfo": "latentmas.plan",
    "analyse": "latentmas.studies",
    "Backbone": "latentmas.spec",
    "BackboneCosts": "latentmas.plan",
    "BackboneInfo": "latentmas.plan",
    "Comparison": "latentmas.io",
    "DataError": "latentmas.errors",
    "EdgeConfig": "latentmas.training",
    "EdgeTrainer": "latentmas.training",
    "ExecutionError": "latentmas.errors",
    "Explanation": "latentmas.cost",
    "evaluate": "latentmas.evaluation",
    "Graph": "latentmas.spec",
    "GraphError": "latentmas.errors",
    "GraphSpec": "latentmas.spec",
    "Hardware": "latentmas.cost",
    "InnerConfig": "latentmas.training",
    "InnerTrainer": "latentmas.training",
    "LatentMASError": "latentmas.errors",
    "Link": "latentmas.links",
    "LoRA": "latentmas.spec",
    "LinkReport": "latentmas.io",
    "OuterConfig": "latentmas.training",
    "OuterTrainer": "latentmas.training",
    "Plan": "latentmas.plan",
    "PlanError": "latentmas.errors",
    "Problem": "latentmas.errors",
    "QuantizedCosts": "latentmas.plan",
    "Quantization": "latentmas.spec",
    "RayEngine": "latentmas.evaluation",
    "RolloutConfig": "latentmas.training",
    "RolloutTrainer": "latentmas.training",
    "RunOptions": "latentmas.plan",
    "RunResult": "latentmas.runtime",
    "Score": "latentmas.runtime",
    "System": "latentmas.runtime",
    "TeamDifference": "latentmas.io",
    "TeamReport": "latentmas.io",
    "TorchrunEngine": "latentmas.evaluation",
    "TrainingInterrupted": "latentmas.errors",
    "UnknownNameError": "latentmas.errors",
    "WeightsError": "latentmas.errors",
    "diff_teams": "latentmas.io",
    "inspect_team": "latentmas.io",
    "link_kinds": "latentmas.links",
    "load_release": "latentmas.interop",
    "measure_costs": "latentmas.studies",
    "prompt_file": "latentmas.spec",
    "rerun": "latentmas.io",
    "run_baseline": "latentmas.studies",
    "sweep": "latentmas.studies",
    "train": "latentmas.training",
    "training_report": "latentmas.viz",
}

# Packages that are attributes without being imported by name.
_PACKAGES = {"errors", "plan", "prompts", "registry", "spec", "templates"}

__all__ = [
    "AdapterInfo",
    "analyse",
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
    "measure_costs",
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
    "run_baseline",
    "RunOptions",
    "RunResult",
    "Score",
    "sweep",
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
    if name in _PACKAGES:
        return importlib.import_module(f"latentmas.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
