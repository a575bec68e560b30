"""Teams on the hub: found and fetched, or pushed in one commit."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentmas.errors import LatentMASError, WeightsError
from latentmas.io._folder import CARD, LINKS, MANIFEST, OURS, part, part_names
from latentmas.io._format import inside, read_manifest
from latentmas.io._steady import read_steadily
from latentmas.redact import hide, secrets_in

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["FoundTeam", "find_team", "push_folder"]

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
TRAINING = ("scores.json", "*/arguments.json", "*/log.jsonl", "*/manifest.json")
PATTERNS = [MANIFEST, LINKS, CARD, "prompts/*.jinja", *(f"training/{name}" for name in TRAINING)]
"""Only these are fetched."""


@dataclass(frozen=True)
class FoundTeam:
    """A saved team on this machine."""

    folder: Path
    revision: str | None
    """The hub's commit, for one from there."""


def find_team(
    source: str | Path, *, revision: str | None = None, token: str | None = None
) -> FoundTeam:
    """The folder of a saved team, fetched from the hub if need be; what was cut short goes on.

    Args:
        source: a folder, or a repository of the hub.
        revision: branch, tag or commit of that repository.
        token: of the hub; None takes HF_TOKEN, or what `hf auth login` keeps.

    Raises:
        WeightsError: LM502 for a file, LM511 when the hub does not give it.
        LatentMASError: a revision is given for a folder.
    """
    if Path(source).is_file():
        raise WeightsError(
            f"LM502 {str(source)!r} is a file, not a saved team: give the folder that "
            "save_pretrained wrote, or a repository of the hub (owner/name); `latentmas check` "
            "and `latentmas plan` take graph files"
        )
    if Path(source).is_dir() or not is_repository(source):
        if revision is not None:
            raise LatentMASError(
                f"revision goes with a repository of the hub, and {str(source)!r} is a folder"
            )
        return FoundTeam(Path(source), None)
    from huggingface_hub import snapshot_download

    with _asking(f"LM511 cannot fetch {str(source)!r} from the hub, and no folder is called so"):
        folder = snapshot_download(
            str(source), revision=revision, allow_patterns=PATTERNS, token=_token(token)
        )
    return FoundTeam(Path(folder), Path(folder).name)


def is_repository(source: str | Path) -> bool:
    """Whether a text has the form `owner/name`."""
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
    """Push a saved team in one commit. What a person wrote into the card, here or there, stays.

    Args:
        folder: of the team.
        repo_id: `owner/name`; made if it is not there.
        private: of a repository that is made; None leaves it to the hub.
        revision: a branch, made if it is not there; None: the main one.
        commit_message: None: "Upload team NAME".
        token: of the hub; None takes HF_TOKEN, or what `hf auth login` keeps.

    Returns:
        The commit's id, which `System.from_pretrained(repo_id, revision=…)` takes.

    Raises:
        WeightsError: LM501 or LM502, the folder holds no sound team.
        LatentMASError: LM511 when the hub does not take it; nothing is changed there.
    """
    from latentmas.io._card import merge_person, model_card  # late: they take torch
    from latentmas.io._training import read_history, read_scores

    folder = Path(folder)
    if not is_repository(repo_id):
        raise LatentMASError(f"LM511 {repo_id!r} is no repository; the form is owner/name")
    manifest, plan, history, scores = read_steadily(
        lambda: (
            *read_manifest(folder, trust_remote_code=True),  # nothing of it is run
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
    """What a commit adds, and the parts of an earlier team that it takes away."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    names = [MANIFEST, LINKS, *part_names(folder, "prompts"), *part_names(folder, "training")]
    for name in names:
        if not inside(folder, part(folder, name)):
            raise WeightsError(f"LM502 {name!r} leaves the folder {str(folder)!r}")
    texts = {name: _text(part(folder, name)) for name in names if name != LINKS} | {CARD: card}
    for name, text in texts.items():
        if found := secrets_in(text):
            raise LatentMASError(
                f"LM513 {name} holds a secret ({found[0]}), which would be pushed; take it out"
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
    """The card that is on the hub, empty when there is none."""
    if CARD not in there:
        return ""
    return _text(Path(api.hf_hub_download(repo_id, CARD, revision=revision, local_dir=scratch)))


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _token(given: str | None) -> str | None:
    """The token, remembered as a secret; so is the one that the client would take by itself."""
    from huggingface_hub import get_token

    hide(given)
    hide(get_token())
    return given


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Turn what the hub's client raises into an error that says what was asked."""
    try:
        yield
    except LatentMASError:
        raise
    except Exception as error:  # the client's own, and those of the HTTP library below it
        lines = (str(error).strip() or repr(error)).splitlines()
        raise WeightsError(
            f"{what}: {lines[0]}; check the name, the revision and the network, and for a private "
            "repository the token (HF_TOKEN, or `hf auth login`)"
        ) from error
