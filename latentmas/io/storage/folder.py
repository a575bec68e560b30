"""A folder whose files are replaced atomically: after a crash it holds all old or all new files.

The new files are written to a subfolder. Renaming it to `.latentmas-commit` commits the change:
from then on, readers (`part`, `part_names`) look there first. The files are then moved to their
final paths; if a crash interrupts this, the next writer completes it. Writers take turns
(`locked`), and readers start again if the files changed while they read (`read_steadily`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentmas.errors import WeightsError
from latentmas.io.storage.lock import locked
from latentmas.safe_data import read_json

__all__ = ["ADAPTERS", "CARD", "LINKS", "MANIFEST", "holds_team", "part", "part_names", "replacing"]

MANIFEST = "latentmas.json"
LINKS = "links.safetensors"
ADAPTERS = "adapters.safetensors"
CARD = "README.md"
COMMIT = ".latentmas-commit"
WRITING = ".latentmas-writing-"
LIST = "parts.json"
LARGEST_LIST = 2**20
OURS = re.compile(
    r"latentmas\.json|(links|adapters)\.safetensors|README\.md|prompts/[^/\\]+\.jinja"
    r"|training/scores\.json|training/\d+-\w+/(arguments\.json|log\.jsonl|manifest\.json)"
)
"""Names of the files of a saved team; other files in the folder are left alone."""


def holds_team(folder: Path) -> bool:
    """Whether the folder holds a saved team."""
    # The order matters: a writer may move the manifest from the first path to the second between
    # the two checks.
    return any((home / MANIFEST).is_file() for home in (folder / COMMIT, folder))


def part(folder: Path, name: str) -> Path:
    """Current path of a file of a saved team; its final path if it does not exist."""
    pending = folder / COMMIT / name
    return pending if pending.is_file() else folder / name


def part_names(folder: Path, below: str) -> list[str]:
    """Names of the team's files in a subfolder such as `training`, sorted."""
    listed = _listed(folder / COMMIT)
    names = _present(folder) if listed is None else listed
    return sorted(name for name in names if name.startswith(f"{below}/"))


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for all new files, and replace the old files with them at the end.

    Args:
        folder: the team's folder, created if missing. Other files in it are left alone.

    Raises:
        LatentMASError: another process keeps writing to the folder.
        OSError: a file cannot be written; the old files are kept.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            _finish(folder)
            _sweep(folder)
            with _scratch(folder) as scratch:
                yield scratch
                names = (p for p in scratch.rglob("*") if p.is_file())
                listed = sorted(path.relative_to(scratch).as_posix() for path in names)
                (scratch / LIST).write_text(json.dumps(listed), encoding="utf-8")
                scratch.chmod(0o755)  # mkdtemp made it private to this user
                # Everything must be on disk before the rename that commits it.
                for path in (*scratch.rglob("*"), scratch):
                    _sync(path)
                scratch.rename(folder / COMMIT)
            _sync(folder)
            _finish(folder)
    except BaseException:
        if made:
            with suppress(OSError):  # not empty if another writer has saved a team there
                folder.rmdir()
        raise


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Create a temporary subfolder, which is removed if the block fails."""
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix=f"{WRITING}{os.getpid()}-"))
    try:
        yield scratch
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _finish(folder: Path) -> None:
    """Move the files of a committed change to their final paths, the manifest last."""
    commit = folder / COMMIT
    if commit.is_symlink() or commit.is_file():
        commit.unlink()
    if not commit.is_dir():
        return
    names = _listed(commit)
    if names is not None:
        for name in sorted(names, key=lambda name: (name == MANIFEST, name)):
            if (commit / name).is_file() and not (commit / name).is_symlink():
                _own_parents(folder, name)
                (commit / name).replace(folder / name)
        for name in _present(folder) - set(names):
            (folder / name).unlink()
            with suppress(OSError):  # folders that hold other files are kept
                for parent in Path(name).parents[:-1]:
                    (folder / parent).rmdir()
        _sync(folder)
        (commit / LIST).unlink()
    shutil.rmtree(commit)


def _listed(commit: Path) -> list[str] | None:
    """Names of all new files; None if there is no pending change or all its files have moved."""
    try:
        names = read_json(commit / LIST, LARGEST_LIST)
    except (OSError, WeightsError):
        return None
    if not isinstance(names, list) or commit.is_symlink():
        return None
    return [name for name in names if isinstance(name, str) and OURS.fullmatch(name)]


def _present(folder: Path) -> set[str]:
    """Names of the team's files at their final paths; links to folders are not followed."""
    found = set()
    for root, below, files in os.walk(folder):
        here = Path(root).relative_to(folder)
        below[:] = [name for name in below if here.parts or name in ("prompts", "training")]
        found |= {(here / name).as_posix() for name in files}
    return {name for name in found if OURS.fullmatch(name)}


def _own_parents(folder: Path, name: str) -> None:
    """Create the parent folders of a file, replacing symbolic links among them."""
    for parent in reversed((folder / name).relative_to(folder).parents[:-1]):
        if (folder / parent).is_symlink():
            (folder / parent).unlink()
        (folder / parent).mkdir(exist_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what dead writers left; without file locks, live writers may be at work here."""
    for left in folder.glob(f"{WRITING}*-*"):
        owner = left.name.removeprefix(WRITING).partition("-")[0]
        if owner.isdecimal() and not _alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    if os.name == "nt":  # on Windows, signal 0 is CTRL_C_EVENT, not a mere check
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return process != os.getpid()


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk, so that a power failure does not lose it.

    Raises:
        OSError: the file cannot be flushed; some file systems only now report that they are full.
    """
    folder = path.is_dir()
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError:
        if not folder:  # some systems cannot sync a folder
            raise
