"""Save and load teams, on disk and on the Hub: safetensors and JSON, no backbones, no pickles."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentmas.io._digest import digest_rows, weights_digest
    from latentmas.io._format import read_manifest
    from latentmas.io._hub import push_folder
    from latentmas.io._record import RunRecorder
    from latentmas.io._rerun import Comparison, rerun
    from latentmas.io._run_manifest import RunManifest
    from latentmas.io._steady import read_steadily
    from latentmas.io._tensors import load_tensors, save_tensors
    from latentmas.io._training import read_history
    from latentmas.io.diff import TeamDifference, diff_teams
    from latentmas.io.inspect import TeamReport, inspect_team
    from latentmas.io.links import LinkReport, load_links, save_links
    from latentmas.io.load import load_link_weights, load_system
    from latentmas.io.save import push_system, save_system

# Imported on first use, so that inspecting a team does not import torch.
_HOMES = {
    "Comparison": "_rerun",
    "LinkReport": "links",
    "RunManifest": "_run_manifest",
    "RunRecorder": "_record",
    "TeamDifference": "diff",
    "TeamReport": "inspect",
    "diff_teams": "diff",
    "digest_rows": "_digest",
    "inspect_team": "inspect",
    "load_link_weights": "load",
    "load_links": "links",
    "load_system": "load",
    "push_folder": "_hub",
    "load_tensors": "_tensors",
    "push_system": "save",
    "read_manifest": "_format",
    "read_steadily": "_steady",
    "save_tensors": "_tensors",
    "read_history": "_training",
    "rerun": "_rerun",
    "save_links": "links",
    "save_system": "save",
    "weights_digest": "_digest",
}

__all__ = [
    "Comparison",
    "LinkReport",
    "RunManifest",
    "RunRecorder",
    "TeamDifference",
    "TeamReport",
    "diff_teams",
    "digest_rows",
    "inspect_team",
    "load_link_weights",
    "load_links",
    "load_system",
    "load_tensors",
    "push_folder",
    "push_system",
    "read_history",
    "read_manifest",
    "read_steadily",
    "rerun",
    "save_links",
    "save_system",
    "save_tensors",
    "weights_digest",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"latentmas.io.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
