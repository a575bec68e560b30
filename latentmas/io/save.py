"""Save a team to a folder or push it to the Hub."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentmas import __version__
from latentmas.atomic import write_error, write_text_atomically
from latentmas.errors import LatentMASError, WeightsError
from latentmas.io._format import HEADER, VERSION, Manifest, file_digest
from latentmas.io._hub import push_folder
from latentmas.io._training import plain, write_history
from latentmas.io.card.card import merge_person, model_card
from latentmas.io.storage.folder import CARD, COMMIT, LINKS, MANIFEST, holds_team, part, replacing
from latentmas.io.weights.adapters import adapters_digest, save_adapters
from latentmas.io.weights.tensors import save_tensors
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
    """Save links, agents' adapters, graph, prompts, records and a model card, but no backbones.

    The team is replaced atomically: after a crash, the folder holds either the old team or the new
    one. Processes that save to the same folder take turns. Text that a person wrote in the model
    card is kept.

    Args:
        system: the system to save.
        folder: destination; a saved team in it is replaced.
        scores: measured results to add to the system's; they replace results with the same
            metric, data and settings.
        into: accept a folder that holds other files, such as a trainer's checkpoint folder.
        name: name of the team in the card's example; None refers to the folder itself.

    Raises:
        LatentMASError: the folder is a file or holds something other than a saved team; another
            process keeps writing to it; LM513 when a prompt contains a secret.
        WeightsError: LM503 when a link or adapter holds values that are not finite, which
            `load_system` would reject.
        DataError: the folder cannot be written, with the reason; this is also an OSError.
    """
    folder = Path(folder)
    if folder.is_file() or (not into and not _replaceable(folder)):
        raise LatentMASError(
            f"{str(folder)!r} holds something other than a saved team; choose another folder"
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
    """Push a team to the Hub; see `push_folder` and `save_system` for arguments and errors."""
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
    """Metadata for a file of links, so that the file can be read without its team.

    Args:
        plan: the plan that the links belong to.
        links: the links in the file.
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
    # A single entry, because safetensors does not keep the order of several.
    return {HEADER: canonical_json(told)}


def _replaceable(folder: Path) -> bool:
    if not folder.exists():
        return True
    # List the files before looking for a manifest: another writer may be moving the first team
    # into the folder at this moment, and it moves the manifest last.
    ours = all(path.name.startswith(COMMIT.partition("-")[0]) for path in folder.iterdir())
    return ours or holds_team(folder)


def _merged(old: Sequence[Score], new: Sequence[Score]) -> list[Score]:
    """All scores; of two that measure the same thing, the later one."""
    found = {}
    for score in (*old, *new):
        found[score.metric, score.data, canonical_json(plain(score.settings))] = score
    return list(found.values())


def refuse_secrets(plan: Plan) -> None:
    """Raise LM513 if the graph contains a secret; redacting the text would change the team."""
    texts = {f"the prompt of agent {a.name!r}": a.prompt for a in plan.graph.agents}
    texts |= {f"the system turn of agent {a.name!r}": a.system or "" for a in plan.graph.agents}
    texts |= {f"text source {s.name!r}": s.text or "" for s in plan.graph.text_sources}
    texts |= {"the graph": plan.graph.to_json()}
    for where, text in texts.items():
        found = secrets_in(text)
        if found:
            raise LatentMASError(
                f"LM513 {where} contains a secret ({found[0]}), which would be saved with the "
                "team; remove it, or pass it to a tool or a text source at run time"
            )


def _refuse_not_finite(system: System) -> None:
    weights = system.link_state() | system.adapter_state()
    bad = [name for name, t in weights.items() if not t.isfinite().all()]
    if bad:
        raise WeightsError(
            f"LM503 the team was not saved: {bad[0]} holds values that are not finite"
            + (f", and {len(bad) - 1} more" if bad[1:] else "")
        )


def _write(system: System, folder: Path, card: str, name: str | None) -> None:
    plan = system.plan
    state = {name: t.detach().cpu().contiguous() for name, t in system.link_state().items()}
    save_tensors(state, folder / LINKS, links_header(plan, plan.links))
    save_adapters(system, folder)
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
    manifest = _manifest(system, folder)
    write_text_atomically(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")


def _prompt_files(plan: Plan) -> dict[str, str]:
    """Agent → path of its prompt file in the folder, without the suffix.

    Agents such as `planner` and `Planner` would share a file on a case-insensitive file system. A
    numeric suffix separates them; agent names cannot contain its hyphen.
    """
    counts = Counter[str]()
    found = {}
    for agent in plan.graph.agents:
        counts[agent.name.lower()] += 1
        count = counts[agent.name.lower()]
        found[agent.name] = f"prompts/{agent.name}" + (f"-{count}" if count > 1 else "")
    return found


def _manifest(system: System, folder: Path) -> Manifest:
    plan, weights = system.plan, file_digest(folder / LINKS)
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
        adapters={agent: one.lora for agent, one in system.agent_adapters().items()},
        adapter_weights=adapters_digest(folder),
    )
