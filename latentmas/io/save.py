"""Writing a team."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentmas import __version__
from latentmas.atomic import write_error, write_text_atomically
from latentmas.errors import LatentMASError, WeightsError
from latentmas.io._card import merge_person, model_card
from latentmas.io._folder import CARD, COMMIT, LINKS, MANIFEST, holds_team, part, replacing
from latentmas.io._format import HEADER, VERSION, Manifest, file_digest
from latentmas.io._hub import push_folder
from latentmas.io._tensors import save_tensors
from latentmas.io._training import plain, write_history
from latentmas.plan import LinkPlan, Plan
from latentmas.redact import secrets_in
from latentmas.runtime import Score, System
from latentmas.spec import canonical_json

__all__ = ["links_header", "push_system", "refuse_secrets", "save_system"]


def save_system(
    system: System,
    folder: str | Path,
    *,
    scores: Sequence[Score] = (),
    into: bool = False,
    name: str | None = None,
) -> Path:
    """Write links, graph, prompts, the record of trainings and a model card; never a backbone.

    All parts change at one moment: a crash leaves the old team whole, or the new one. Processes
    that save into one folder take turns. What a person wrote into the card stays.

    Args:
        system: what to save.
        folder: where to; a saved team there is replaced.
        scores: measured results, added to those that the system has; one with the same metric,
            data and settings is replaced.
        into: accept a folder with other things in it, as a trainer's checkpoint folder is.
        name: how the card's example calls the team; None: the folder itself.

    Raises:
        LatentMASError: the folder holds something that is not a saved team, or is a file; another
            process keeps writing to it; LM513 when a prompt holds a secret.
        WeightsError: LM503, a link holds values that are not finite, which could not be loaded.
        DataError: the folder cannot be written, with the reason; it is an OSError as well.
    """
    folder = Path(folder)
    if folder.is_file() or (not into and not _replaceable(folder)):
        raise LatentMASError(
            f"{str(folder)!r} holds something other than a saved team; choose another"
        )
    refuse_secrets(system.plan)
    _refuse_not_finite(system)
    system.scores = _merged(system.scores, scores)
    try:
        with replacing(folder) as scratch:
            old = part(folder, CARD)
            card = old.read_text(encoding="utf-8", errors="replace") if old.is_file() else ""
            _write(system, scratch, card, name)
    except OSError as error:
        raise write_error(folder, error, "the team cannot be written to") from error
    return folder


def push_system(
    system: System,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    scores: Sequence[Score] = (),
) -> str:
    """Push a team to the hub; arguments and errors as `push_folder` and `save_system`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_system(system, Path(scratch) / "team", scores=scores, name=repo_id)
        return push_folder(
            folder,
            repo_id,
            private=private,
            revision=revision,
            commit_message=commit_message,
            token=token,
        )


def links_header(plan: Plan, links: Sequence[LinkPlan]) -> dict[str, str]:
    """Metadata of a file of links, which tells by itself what they are.

    Args:
        plan: what they belong to.
        links: those in the file.
    """
    facts = {key: b.info.model_dump(mode="json") for key, b in plan.backbones.items()}
    told = {
        "format": "latentmas-links",
        "version": VERSION,
        "latentmas": __version__,
        "digest": plan.digest,
        "graph": plan.graph.model_dump(mode="json"),
        "facts": facts,
        "links": [link.model_dump(mode="json") for link in links],
    }
    return {HEADER: canonical_json(told)}  # one entry: the file keeps several in no order


def _replaceable(folder: Path) -> bool:
    if not folder.exists():
        return True
    # Listed first: another writer may be about to put the first team there, manifest last.
    ours = all(path.name.startswith(COMMIT.partition("-")[0]) for path in folder.iterdir())
    return ours or holds_team(folder)


def _merged(old: Sequence[Score], new: Sequence[Score]) -> list[Score]:
    """Scores, the later of two that measure the same thing."""
    found = {}
    for score in (*old, *new):
        found[score.metric, score.data, canonical_json(plain(score.settings))] = score
    return list(found.values())


def refuse_secrets(plan: Plan) -> None:
    """Raises LM513 for a graph that holds a secret: changing its text would change the team."""
    texts = {f"the prompt of agent {a.name!r}": a.prompt for a in plan.graph.agents}
    texts |= {f"the system turn of agent {a.name!r}": a.system or "" for a in plan.graph.agents}
    texts |= {f"text source {s.name!r}": s.text or "" for s in plan.graph.text_sources}
    texts |= {"the graph": plan.graph.to_json()}
    for where, text in texts.items():
        found = secrets_in(text)
        if found:
            raise LatentMASError(
                f"LM513 {where} holds a secret ({found[0]}), which would be saved with the team; "
                "take it out, or give it to a tool or a text source at run time"
            )


def _refuse_not_finite(system: System) -> None:
    bad = [name for name, t in system.link_state().items() if not t.isfinite().all()]
    if bad:
        raise WeightsError(
            f"LM503 the team is not saved: {bad[0]} holds values that are not finite"
            + (f", and {len(bad) - 1} more" if bad[1:] else "")
        )


def _write(system: System, folder: Path, card: str, name: str | None) -> None:
    plan = system.plan
    state = {name: t.detach().cpu().contiguous() for name, t in system.link_state().items()}
    save_tensors(state, folder / LINKS, links_header(plan, plan.links))
    files = _prompt_files(plan)
    for agent in plan.graph.agents:
        write_text_atomically(folder / f"{files[agent.name]}.jinja", agent.prompt)
        if agent.system is not None:
            write_text_atomically(folder / f"{files[agent.name]}.system.jinja", agent.system)
    write_history(folder, system.history, system.scores)
    made = model_card(
        plan, history=system.history, scores=system.scores, commits=system.commits(), name=name
    )
    write_text_atomically(folder / CARD, merge_person(made, [card]))
    manifest = _manifest(system, file_digest(folder / LINKS))
    write_text_atomically(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")


def _prompt_files(plan: Plan) -> dict[str, str]:
    """Agent → path of its prompt's file in the folder, without the suffix.

    Agents such as `planner` and `Planner` would share a file on a disk that ignores case. The
    hyphen that tells theirs apart is in no agent's name.
    """
    counts = Counter[str]()
    found = {}
    for agent in plan.graph.agents:
        counts[agent.name.lower()] += 1
        count = counts[agent.name.lower()]
        found[agent.name] = f"prompts/{agent.name}" + (f"-{count}" if count > 1 else "")
    return found


def _manifest(system: System, weights: str) -> Manifest:
    plan = system.plan
    files = _prompt_files(plan)
    graph: dict[str, Any] = plan.graph.model_dump(mode="json")
    for agent in graph["agents"]:
        name = files[agent["name"]]
        agent["prompt"] = {"file": f"{name}.jinja"}
        if agent["system"] is not None:
            agent["system"] = {"file": f"{name}.system.jinja"}
    return Manifest(
        latentmas=__version__,
        digest=plan.digest,
        graph=graph,
        facts={key: backbone.info for key, backbone in plan.backbones.items()},
        commits=system.commits(),
        links=plan.links,
        weights=weights,
    )
