"""Writing a team."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from latentmas import __version__
from latentmas.errors import LatentMASError
from latentmas.io._card import model_card
from latentmas.io._format import LINKS, MANIFEST, Manifest
from latentmas.plan import Plan
from latentmas.runtime import System
from latentmas.spec import write_text_atomically

__all__ = ["save_system"]


def save_system(system: System, folder: str | Path, *, into: bool = False) -> Path:
    """Write links, graph, prompts and a model card; never a backbone.

    The parts are written beside their places first and moved there at the end, the manifest last.

    Args:
        system: what to save.
        folder: where to; a saved team there is replaced.
        into: accept a folder with other things in it, as a trainer's checkpoint folder is.

    Raises:
        LatentMASError: the folder holds something that is not a saved team, or is a file.
    """
    folder = Path(folder)
    if folder.is_file() or (not into and not _replaceable(folder)):
        raise LatentMASError(
            f"{str(folder)!r} holds something other than a saved team; choose another"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
        _write(system, Path(scratch))
        _move(Path(scratch), folder)
    return folder


def _replaceable(folder: Path) -> bool:
    return not folder.exists() or (folder / MANIFEST).exists() or not any(folder.iterdir())


def _write(system: System, folder: Path) -> None:
    plan = system.plan
    state = {name: t.detach().cpu().contiguous() for name, t in system.link_state().items()}
    save_file(state, folder / LINKS, metadata={"digest": plan.digest})
    (folder / LINKS).chmod(0o644)
    for agent in plan.graph.agents:
        write_text_atomically(folder / "prompts" / f"{agent.name}.jinja", agent.prompt)
        if agent.system is not None:
            write_text_atomically(folder / "prompts" / f"{agent.name}.system.jinja", agent.system)
    write_text_atomically(folder / "README.md", model_card(plan))
    write_text_atomically(folder / MANIFEST, _manifest(plan).model_dump_json(indent=2) + "\n")


def _manifest(plan: Plan) -> Manifest:
    graph: dict[str, Any] = plan.graph.model_dump(mode="json")
    for agent in graph["agents"]:
        name = agent["name"]
        agent["prompt"] = {"file": f"prompts/{name}.jinja"}
        if agent["system"] is not None:
            agent["system"] = {"file": f"prompts/{name}.system.jinja"}
    return Manifest(
        latentmas=__version__,
        digest=plan.digest,
        graph=graph,
        facts={key: backbone.info for key, backbone in plan.backbones.items()},
        links=plan.links,
    )


def _move(scratch: Path, folder: Path) -> None:
    """Move the parts to their places, the manifest last."""
    if (folder / "prompts").exists():
        shutil.rmtree(folder / "prompts")
    for name in ("prompts", "README.md", LINKS, MANIFEST):
        (scratch / name).replace(folder / name)
