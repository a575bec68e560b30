"""A folder whose parts change together: a crash leaves all of the old ones, or all of the new.

The new parts are written to a folder of their own inside. Renaming that to `.latentmas-commit` is
the moment of change: from then on readers (`part`, `part_names`) look there first. Its files are
then moved to their places; a later writer ends what a crash cut short. Writers come one after the
other (`locked`); readers read again what has changed under them (`read_steadily`).
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
from latentmas.io._lock import locked
from latentmas.safe_data import read_json

__all__ = ["CARD", "LINKS", "MANIFEST", "holds_team", "part", "part_names", "replacing"]

MANIFEST = "latentmas.json"
LINKS = "links.safetensors"
CARD = "README.md"
COMMIT = ".latentmas-commit"
WRITING = ".latentmas-writing-"
LIST = "parts.json"
LARGEST_LIST = 2**20
OURS = re.compile(
    r"latentmas\.json|links\.safetensors|README\.md|prompts/[^/\\]+\.jinja"
    r"|training/scores\.json|training/\d+-\w+/(arguments\.json|log\.jsonl|manifest\.json)"
)
"""Names of the parts of a saved team; whatever else is in the folder is left alone."""


def holds_team(folder: Path) -> bool:
    """Whether a team was saved there."""
    # In this order: the manifest may be moved from the first place to the second at any moment.
    return any((home / MANIFEST).is_file() for home in (folder / COMMIT, folder))


def part(folder: Path, name: str) -> Path:
    """Where a part of a saved team is; the path of its place when it is not there."""
    pending = folder / COMMIT / name
    return pending if pending.is_file() else folder / name


def part_names(folder: Path, below: str) -> list[str]:
    """Names of the parts below a folder such as `training`, sorted."""
    listed = _listed(folder / COMMIT)
    names = _present(folder) if listed is None else listed
    return sorted(name for name in names if name.startswith(f"{below}/"))


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write all parts to, and put them in place of the old ones at the end.

    Args:
        folder: of the team; made if need be. Other files in it are left alone.

    Raises:
        LatentMASError: another process keeps writing there.
        OSError: a part cannot be written; the old ones stay.
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
                scratch.chmod(0o755)
                for path in (*scratch.rglob("*"), scratch):
                    _sync(path)
                scratch.rename(folder / COMMIT)
            _sync(folder)
            _finish(folder)
    except BaseException:
        if made:
            with suppress(OSError):  # it may hold a team by now
                folder.rmdir()
        raise


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A new folder inside, which is removed when the block fails."""
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix=f"{WRITING}{os.getpid()}-"))
    try:
        yield scratch
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _finish(folder: Path) -> None:
    """Move the parts of a change that was decided to their places, the manifest last."""
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
            with suppress(OSError):  # a folder that holds something else stays
                for parent in Path(name).parents[:-1]:
                    (folder / parent).rmdir()
        _sync(folder)
        (commit / LIST).unlink()
    shutil.rmtree(commit)


def _listed(commit: Path) -> list[str] | None:
    """Names of all new parts; None when there is no change, or no part is left in it."""
    try:
        names = read_json(commit / LIST, LARGEST_LIST)
    except (OSError, WeightsError):
        return None
    if not isinstance(names, list) or commit.is_symlink():
        return None
    return [name for name in names if isinstance(name, str) and OURS.fullmatch(name)]


def _present(folder: Path) -> set[str]:
    """Names of the parts that are in their places; symbolic links to folders are not followed."""
    found = set()
    for root, below, files in os.walk(folder):
        here = Path(root).relative_to(folder)
        below[:] = [name for name in below if here.parts or name in ("prompts", "training")]
        found |= {(here / name).as_posix() for name in files}
    return {name for name in found if OURS.fullmatch(name)}


def _own_parents(folder: Path, name: str) -> None:
    """Make the folders of a part; one that leads elsewhere is replaced."""
    for parent in reversed((folder / name).relative_to(folder).parents[:-1]):
        if (folder / parent).is_symlink():
            (folder / parent).unlink()
        (folder / parent).mkdir(exist_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what writers that are gone have left; where there are no locks, others may write."""
    for left in folder.glob(f"{WRITING}*-*"):
        owner = left.name.removeprefix(WRITING).partition("-")[0]
        if owner.isdecimal() and not _alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    if os.name == "nt":  # where a signal 0 is no question
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return process != os.getpid()


def _sync(path: Path) -> None:
    """Wait until the disk has a file, or a folder's names, so that a power cut does not lose them.

    Raises:
        OSError: the disk cannot keep the file; some file systems say only now that they are full.
    """
    folder = path.is_dir()
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError:
        if not folder:  # not every system can sync a folder
            raise
