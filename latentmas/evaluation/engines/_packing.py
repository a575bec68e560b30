"""Teams in a form that another process can open: the files of a saved team, and functions.

Backbones do not travel: each process loads them from their sources.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.evaluation.runner import Job, Work
from latentmas.runtime import System
from latentmas.tools import tools as registered

__all__ = ["PackedJob", "PackedTeam", "Payload", "pack_works", "unpack_team"]

Dumps = Callable[[Any], bytes]
"""Pickles functions; Ray's own also pickles those of notebooks and scripts."""


@dataclass(frozen=True)
class PackedTeam:
    """A team as `save_pretrained` writes it, and how it was loaded."""

    files: Mapping[str, bytes]
    dtype: str | None
    executor: str
    trust_remote_code: bool
    functions: bytes
    """Pickled tools and text functions that are not registered."""


@dataclass(frozen=True)
class PackedJob:
    """How a job's system is made from one of the packed teams."""

    team: int
    control: str | None
    twin_tokens: int | None
    settings: Mapping[str, Any]
    """What its answers depend on, to compare with what a worker has loaded."""


@dataclass(frozen=True, kw_only=True)
class Payload:
    """Everything that a worker needs besides its tasks."""

    version: str
    """Version of latentmas."""
    device: str
    plugins: Mapping[str, bytes]
    """Python files to import first, by name."""
    modules: Sequence[str]
    """Modules to import first."""
    teams: Sequence[PackedTeam]
    jobs: Mapping[str, PackedJob]
    objects: bytes
    """Pickled arguments of `System.run` that are not plain data."""


def pack_works(
    works: Sequence[Work],
    *,
    device: str,
    plugins: Sequence[Path] = (),
    modules: Sequence[str] = (),
    dumps: Dumps = pickle.dumps,
) -> Payload:
    """Pack the systems of some jobs.

    Args:
        works: the jobs.
        device: device of the workers' teams.
        plugins: Python files that workers import first.
        modules: modules that workers import first.
        dumps: pickles functions.

    Raises:
        LatentMASError: a team has something that cannot be sent to another process.
    """
    bases = list({id(work.job.recipe.base): work.job.recipe.base for work in works}.values())
    places = {id(base): place for place, base in enumerate(bases)}
    return Payload(
        version=version("latentmas"),
        device=device,
        plugins={path.name: path.read_bytes() for path in plugins},
        modules=tuple(modules),
        teams=[_pack_team(base, dumps) for base in bases],
        jobs={work.job.name: _pack_job(work.job, places) for work in works},
        objects=_pickled("an option of the run", dict(works[0].objects), dumps),
    )


def _pack_job(job: Job, places: Mapping[int, int]) -> PackedJob:
    recipe = job.recipe
    return PackedJob(places[id(recipe.base)], recipe.control, recipe.twin_tokens, job.settings)


def _pack_team(system: System, dumps: Dumps) -> PackedTeam:
    if system.taps.open:
        raise LatentMASError(
            "the team has a tap, which cannot follow it to other processes; remove the tap, or "
            'evaluate with engine="local"'
        )
    with tempfile.TemporaryDirectory() as folder:
        saved = system.save_pretrained(Path(folder) / "team")
        files = {
            path.relative_to(saved).as_posix(): path.read_bytes()
            for path in saved.rglob("*")
            if path.is_file()
        }
    dtypes = {str(one.dtype).removeprefix("torch.") for one in system.agent_backbones.values()}
    specs = [planned.spec for planned in system.plan.backbones.values()]
    return PackedTeam(
        files=files,
        dtype=dtypes.pop() if len(dtypes) == 1 else None,
        executor=system.executor,
        trust_remote_code=any(spec.trust_remote_code for spec in specs),
        functions=_pickled("a tool or text function", _functions(system), dumps),
    )


def _functions(system: System) -> dict[str, Any]:
    """Functions by argument of `System.from_pretrained`; workers find registered tools."""
    known = set(registered.names())
    own = {
        name: tool
        for name, tool in system.tools.items()
        if not (name in known and registered.get(name) is tool)
    }
    return {"tools": own, "text_functions": dict(system.text_functions)}


def _pickled(what: str, value: Any, dumps: Dumps) -> bytes:
    try:
        return dumps(value)
    except Exception as error:  # whatever the pickling of the user's own objects raises
        raise LatentMASError(
            f"{what} cannot be sent to other processes: {type(error).__name__}: {error}. Define "
            'it in a module that workers can import, or evaluate with engine="local"'
        ) from error


def unpack_team(packed: PackedTeam, device: str) -> System:
    """Load a packed team.

    Args:
        packed: the team.
        device: device of all agents.

    Raises:
        WeightsError: a backbone cannot be loaded here.
    """
    # The pickle comes from the process that sent this one its code as well.
    functions = pickle.loads(packed.functions)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in packed.files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return System.from_pretrained(
            folder,
            device=device,
            dtype=packed.dtype,
            executor=packed.executor,
            trust_remote_code=packed.trust_remote_code,
            **functions,
        )
