"""Find and download teams on the Hub, and push them in one commit."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentmas.errors import LatentMASError, WeightsError
from latentmas.io._format import inside, read_manifest
from latentmas.io.storage.folder import ADAPTERS, CARD, LINKS, MANIFEST, OURS, part, part_names
from latentmas.io.storage.steady import read_steadily
from latentmas.redact import hide, secrets_in

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["FoundTeam", "find_team", "push_folder"]

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
TRAINING = ("scores.json", "*/arguments.json", "*/log.jsonl", "*/manifest.json")
PATTERNS = [
    MANIFEST,
    LINKS,
    ADAPTERS,
    CARD,
    "prompts/*.jinja",
    *(f"training/{name}" for name in TRAINING),
]
"""The only files that are downloaded."""


@dataclass(frozen=True)
class FoundTeam:
    """A saved team on this machine."""

    folder: Path
    revision: str | None
    """Commit on the Hub; None for a local folder."""


def find_team(
    source: str | Path, *, revision: str | None = None, token: str | None = None
) -> FoundTeam:
    """Find the folder of a saved team, downloading it from the Hub if necessary.

    An interrupted download is resumed.

    Args:
        source: a folder, or a repository on the Hub.
        revision: branch, tag or commit of that repository.
        token: Hub access token; None uses HF_TOKEN or the token stored by `hf auth login`.

    Raises:
        WeightsError: LM502 for a file, LM511 when the team cannot be downloaded.
        LatentMASError: `revision` is given for a local folder.
    """
    if Path(source).is_file():
        raise WeightsError(
            f"LM502 {str(source)!r} is a file, not a saved team: give the folder that "
            "save_pretrained wrote, or a repository on the Hub (owner/name); `latentmas check` "
            "and `latentmas plan` take graph files"
        )
    if Path(source).is_dir() or not is_repository(source):
        if revision is not None:
            raise LatentMASError(
                f"revision requires a repository on the Hub, but {str(source)!r} is a folder"
            )
        return FoundTeam(Path(source), None)
    from huggingface_hub import snapshot_download

    with _asking(f"LM511 cannot download {str(source)!r} from the Hub, and no such folder exists"):
        folder = snapshot_download(
            str(source), revision=revision, allow_patterns=PATTERNS, token=_token(token)
        )
    return FoundTeam(Path(folder), Path(folder).name)


def is_repository(source: str | Path) -> bool:
    """Whether `source` has the form `owner/name`."""
    return REPOSITORY.fullmatch(str(source)) is not None


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
) -> str:
    """Push a saved team in one commit, keeping text that a person wrote in either model card.

    Args:
        folder: the team's folder.
        repo_id: repository, as `owner/name`; created if missing.
        private: visibility of the repository if it is created; None uses the Hub's default.
        revision: branch to push to, created if missing; None pushes to the main branch.
        commit_message: commit message; None uses "Upload team NAME".
        token: Hub access token; None uses HF_TOKEN or the token stored by `hf auth login`.

    Returns:
        The commit id, which `System.from_pretrained(repo_id, revision=…)` accepts.

    Raises:
        WeightsError: LM501 or LM502 when the folder does not hold a valid team.
        LatentMASError: LM511 when the push fails; the repository is left unchanged.
    """
    from latentmas.io._training import read_history, read_scores
    from latentmas.io.card.card import merge_person, model_card  # imported late: they import torch

    folder = Path(folder)
    if not is_repository(repo_id):
        raise LatentMASError(f"LM511 {repo_id!r} is not a repository name; use the form owner/name")
    manifest, plan, history, scores = read_steadily(
        lambda: (
            *read_manifest(folder, trust_remote_code=True),  # no code of the repositories runs here
            read_history(folder),
            read_scores(folder),
        ),
        folder,
    )
    card = model_card(
        plan,
        history=history,
        scores=scores,
        commits=manifest.commits,
        name=repo_id,
    )
    from huggingface_hub import HfApi

    api = HfApi(token=_token(token))
    with _asking(f"LM511 cannot push to {repo_id!r}"), tempfile.TemporaryDirectory() as scratch:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo_id, revision=revision)
        old = [_text(part(folder, CARD)), _card_there(api, repo_id, revision, there, scratch)]
        done = api.create_commit(
            repo_id,
            _operations(folder, merge_person(card, old), there),
            commit_message=commit_message or f"Upload team {plan.graph.name}",
            revision=revision,
        )
    return str(done.oid)


def _operations(folder: Path, card: str, there: Sequence[str]) -> list[Any]:
    """The files that the commit adds, and the files of an earlier team that it deletes."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    weights = [LINKS, *([ADAPTERS] if part(folder, ADAPTERS).is_file() else [])]
    names = [MANIFEST, *weights, *part_names(folder, "prompts"), *part_names(folder, "training")]
    for name in names:
        if not inside(folder, part(folder, name)):
            raise WeightsError(f"LM502 {name!r} points outside the folder {str(folder)!r}")
    texts = {name: _text(part(folder, name)) for name in names if name not in weights} | {
        CARD: card
    }
    for name, text in texts.items():
        if found := secrets_in(text):
            raise LatentMASError(
                f"LM513 {name} contains a secret ({found[0]}), which would be pushed; remove it"
            )
    adds = [CommitOperationAdd(name, str(part(folder, name))) for name in names]
    gone = [name for name in there if OURS.fullmatch(name) and name not in (*names, CARD)]
    return [
        CommitOperationAdd(CARD, card.encode()),
        *adds,
        *(CommitOperationDelete(name) for name in gone),
    ]


def _card_there(
    api: HfApi, repo_id: str, revision: str | None, there: Sequence[str], scratch: str
) -> str:
    """The card on the Hub; empty if there is none."""
    if CARD not in there:
        return ""
    return _text(Path(api.hf_hub_download(repo_id, CARD, revision=revision, local_dir=scratch)))


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _token(given: str | None) -> str | None:
    """Register the given token, and the client's default one, as secrets to redact."""
    from huggingface_hub import get_token

    hide(given)
    hide(get_token())
    return given


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Wrap errors of the Hub client in an error that says what was attempted."""
    try:
        yield
    except LatentMASError:
        raise
    except Exception as error:  # the client's own errors and those of its HTTP library
        lines = (str(error).strip() or repr(error)).splitlines()
        raise WeightsError(
            f"{what}: {lines[0]}; check the name, the revision and the network, and for a private "
            "repository the token (HF_TOKEN, or `hf auth login`)"
        ) from error
