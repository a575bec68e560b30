"""Save and load teams, on disk and on the Hub: safetensors and JSON, no backbones, no pickles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.lazy import imported_when_used

if TYPE_CHECKING:
    from latentmas.io._digest import digest_rows, weights_digest
    from latentmas.io._format import read_manifest
    from latentmas.io._hub import push_folder
    from latentmas.io._training import read_history
    from latentmas.io.diff import TeamDifference, diff_teams
    from latentmas.io.inspect import TeamReport, inspect_team
    from latentmas.io.links import LinkReport, load_links, save_links
    from latentmas.io.load import load_link_weights, load_system
    from latentmas.io.runs.manifest import RunManifest
    from latentmas.io.runs.recorder import RunRecorder
    from latentmas.io.runs.rerun import Comparison, rerun
    from latentmas.io.save import push_system, save_system
    from latentmas.io.storage.steady import read_steadily
    from latentmas.io.weights.tensors import load_tensors, save_tensors

# Imported on first use, so that inspecting a team does not import torch.
_HOMES = {
    "Comparison": "runs.rerun",
    "LinkReport": "links",
    "RunManifest": "runs.manifest",
    "RunRecorder": "runs.recorder",
    "TeamDifference": "diff",
    "TeamReport": "inspect",
    "diff_teams": "diff",
    "digest_rows": "_digest",
    "inspect_team": "inspect",
    "load_link_weights": "load",
    "load_links": "links",
    "load_system": "load",
    "load_tensors": "weights.tensors",
    "push_folder": "_hub",
    "push_system": "save",
    "read_history": "_training",
    "read_manifest": "_format",
    "read_steadily": "storage.steady",
    "rerun": "runs.rerun",
    "save_links": "links",
    "save_system": "save",
    "save_tensors": "weights.tensors",
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

__getattr__ = imported_when_used(__name__, _HOMES)
