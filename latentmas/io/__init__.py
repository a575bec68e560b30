"""Teams on disk and on the hub: safetensors and JSON, never a backbone, never a pickle."""

from latentmas.io._digest import digest_rows, weights_digest
from latentmas.io._hub import push_folder
from latentmas.io._record import RunRecorder
from latentmas.io._rerun import Comparison, rerun
from latentmas.io._run_manifest import RunManifest
from latentmas.io._training import read_history
from latentmas.io.links import LinkReport, load_links, save_links
from latentmas.io.load import load_link_weights, load_system
from latentmas.io.save import push_system, save_system

__all__ = [
    "Comparison",
    "LinkReport",
    "RunManifest",
    "RunRecorder",
    "digest_rows",
    "load_link_weights",
    "load_links",
    "load_system",
    "push_folder",
    "push_system",
    "read_history",
    "rerun",
    "save_links",
    "save_system",
    "weights_digest",
]
