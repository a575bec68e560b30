"""The teams, the rows and the graders of the report's tasks, and how its teams are trained."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentmas.io import digest_rows, load_link_weights, read_history
from latentmas.plan import Plan
from latentmas.runtime import System
from latentmas.spec import Graph
from latentmas.studies.paper.presets import Sizes
from latentmas.studies.paper.work import Work
from latentmas.training import train

__all__ = [
    "asking_correct",
    "asking_graph",
    "asking_rows",
    "learn",
    "lone",
    "relay_correct",
    "relay_graph",
    "relay_rows",
    "relay_training",
    "relay_trained",
    "training_of",
]

Row = dict[str, Any]


def relay_correct(text: str, answer: str) -> bool:
    """Whether the first value in a text is the answer of a row of the relay."""
    from latentmas.demo.relay import KINDS, first_value_is

    return first_value_is(answer, text, KINDS)


def asking_correct(text: str, answer: str) -> bool:
    """Whether the first value in a text is the answer of a row of the task with rounds."""
    from latentmas.demo.asking import FACTS, first_value_is

    return first_value_is(answer, text, FACTS)


def relay_graph(work: Work, sizes: Sizes) -> Graph:
    """The relay's team: a reader of passages and an answerer of questions."""
    from latentmas.demo.real import RealRecipe, relay_team

    recipe = RealRecipe(latent_steps=sizes.latent_steps, max_new_tokens=sizes.max_new_tokens)
    return relay_team(work.backbone("reader"), work.backbone("answerer"), recipe)


def lone(work: Work, sizes: Sizes, name: str) -> Graph:
    """The answerer by itself: `"alone"` with the question, `"ceiling"` with the passage too."""
    from latentmas.demo.real import RealRecipe, lone_answerer

    recipe = RealRecipe(max_new_tokens=sizes.max_new_tokens)
    return lone_answerer(name, work.backbone("answerer"), recipe)


def relay_rows(sizes: Sizes) -> list[Row]:
    """Held-out questions of the relay, the same for all seeds: those of the demo's seed 0."""
    return _split(sizes)[1]


def relay_training(sizes: Sizes, seed: int) -> list[Row]:
    """Training rows of a seed, whose passages are not among the held-out ones."""
    from latentmas.demo.relay import make_rows

    first, held = _split(sizes)
    if seed == 0:
        return first
    passages = {row["passage"] for row in held}
    rows = make_rows(2 * sizes.train_rows, seed=1000 + seed)
    return [row for row in rows if row["passage"] not in passages][: sizes.train_rows]


def _split(sizes: Sizes) -> tuple[list[Row], list[Row]]:
    from latentmas.demo.relay import split_rows

    return split_rows(sizes.train_rows, sizes.rows, seed=0)


def training_of(sizes: Sizes, **outer: Any) -> dict[str, Any]:
    """Keywords of `train`: the outer loop as the demo runs it."""
    config: dict[str, Any] = {
        "max_steps": sizes.steps,
        "per_device_train_batch_size": sizes.batch_size,
        "learning_rate": sizes.learning_rate,
        "warmup_steps": min(8, sizes.steps),
        "max_grad_norm": 10.0,
        "logging_steps": 5,
        "probe_stability": False,
        "telemetry": False,
    }
    return {"loops": ["outer"], "settings": {"outer": config | outer}}


def learn(
    system: System, rows: Sequence[Mapping[str, Any]], folder: Path, seed: int, sizes: Sizes
) -> System:
    """Train a team, or continue, and keep what it has learned.

    Args:
        system: The untrained team.
        rows: Training rows.
        folder: Folder for logs, checkpoints and the trained team.
        seed: Random seed.
        sizes: Steps, batch and learning rate.
    """
    done = folder / "team" / "latentmas.json"
    if done.exists():
        load_link_weights(system, done.parent)
        system.history = read_history(done.parent)
        return system
    train(
        system,
        rows,
        output_dir=folder,
        resume="auto",
        seed=seed,
        progress=False,
        **training_of(sizes),
    )
    return system


def relay_trained(work: Work, seed: int) -> System:
    """The relay's team, trained with a seed: once, whichever sections use it."""
    relay = work.beside("relay")
    plan: Plan = relay_graph(relay, relay.sizes).compile()
    rows = relay_training(relay.sizes, seed)
    needs = json.dumps([plan.digest, digest_rows(rows), training_of(relay.sizes)], sort_keys=True)
    name = f"training-{seed}-{hashlib.sha256(needs.encode()).hexdigest()[:12]}"
    return learn(relay.load(plan, seed), rows, relay.folder / name, seed, relay.sizes)


def asking_graph(work: Work, sizes: Sizes, *, apart: bool = False) -> Graph:
    """The team for the task with rounds; it has two agents, or three with the asker apart."""
    from latentmas.demo.asking import asking_team

    return asking_team(
        work.backbone("answerer"),
        latent_steps=sizes.latent_steps,
        asks=min(5, sizes.latent_steps),
        max_new_tokens=sizes.max_new_tokens,
        apart=apart,
    )


def asking_rows(sizes: Sizes, facts: int = 6) -> tuple[list[Row], list[Row]]:
    """Training rows of the task with rounds, and held-out rows with other passages."""
    from latentmas.demo.asking import make_rows

    draw = random.Random(0)
    rows = list(make_rows(sizes.train_rows, draw, facts))
    seen, held = {row["passage"] for row in rows}, list[Row]()
    while len(held) < sizes.rows:
        held += [row for row in make_rows(1, draw, facts) if row["passage"] not in seen]
    return rows, held
