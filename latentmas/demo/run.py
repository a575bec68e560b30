"""The demo: declare, compile, draw, load, train, compare, save and reload, all with the public API.

It shows that private pointer chasing (see `task`), which no single agent and no single round can
solve, is solved by a team whose trained links carry the necessary information around the loop.
"""

from __future__ import annotations

import json as json_lib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

import latentmas as lm
from latentmas.atomic import write_text_atomically
from latentmas.demo._show import Show
from latentmas.demo.task import (
    AGENTS,
    PROMPTS,
    ROUNDS,
    SINGLE_PROMPT,
    WORDS,
    correct,
    heldout_rows,
    inner_rows,
    train_rows,
)
from latentmas.viz import DepthMap

__all__ = ["Recipe", "run_demo", "single_agent", "team"]

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """Sizes and learning rates of the demo."""

    latent_steps: int = 1
    inner_steps: int = 600
    inner_rate: float = 3e-3
    outer_steps: int = 100
    outer_rate: float = 5e-5
    warmup: int = 10
    """Warm-up steps of the outer loop; the inner loop has none."""
    clip: float = 1.0
    """Maximum gradient norm of both loops."""
    batch_size: int = 64
    train_links: str = "all"
    round_weights: tuple[float, ...] | None = None
    heldout: int = 1024


SHOWN = 64
"""Number of questions that `run.html` shows."""
QUICK = Recipe(inner_steps=5, outer_steps=3, heldout=60)
"""A short version of all steps, for tests; it does not learn much."""


def backbone(agent: str) -> lm.Backbone:
    """A small pretrained model in this package, declared like any other backbone."""
    return lm.Backbone(f"package:latentmas/demo/backbones/{agent}")


def team(*, latent_steps: int = 1, rounds: int = ROUNDS) -> lm.Graph:
    """Three agents in a ring, each with private facts; only the solver answers."""
    inputs = ["question", *(f"{agent}_facts" for agent in AGENTS)]
    graph = lm.Graph("pointer-chasing", inputs=inputs, rounds=rounds, latent_steps=latent_steps)
    for agent in AGENTS:
        graph.add_agent(
            agent,
            backbone(agent),
            prompt=PROMPTS[agent],
            inner="recursive",
            max_new_tokens=latent_steps,
        )
    start: dict[str, Any] = {"link": "recursive", "init": "ridge"}
    graph.connect("planner", "critic", **start)
    graph.connect("critic", "solver", **start)
    graph.feedback("solver", "planner.feedback", **start)
    return graph.output("solver")


def single_agent(*, words: int = 1) -> lm.Graph:
    """The solver alone, with its own facts and the question."""
    graph = lm.Graph("single", inputs=["question", "solver_facts"], rounds=1)
    graph.add_agent(
        "solver",
        backbone("solver"),
        prompt=SINGLE_PROMPT,
        inner="recursive",
        max_new_tokens=words,
    )
    return graph.output("solver")


def run_demo(
    output: str | Path, *, seed: int = 0, quick: bool = False, json: bool = False
) -> dict[str, Any]:
    """Run the demo and write the trained team, the drawing and the results to a folder.

    Args:
        output: folder for `team/`, `team.svg`, `run.html`, `training.html`, `accuracy.png`,
            `results.json`, `plan.json`.
        seed: random seed of links and data; backbones are fixed.
        quick: run only a few steps, to check that everything works.
        json: print nothing to stdout.

    Returns:
        Accuracies on held-out questions, chance level, number of link parameters, and seconds.
    """
    with _one_thread():
        return _run_demo(Path(output), seed, quick, json)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread: small models gain nothing from more, which only contend."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _run_demo(folder: Path, seed: int, quick: bool, json: bool) -> dict[str, Any]:
    began = time.perf_counter()
    logging.disable_progress_bar()
    torch.manual_seed(seed)
    recipe, show = QUICK if quick else Recipe(), Show(quiet=json)
    folder.mkdir(parents=True, exist_ok=True)

    graph = team(latent_steps=recipe.latent_steps)
    plan = graph.compile()
    plan.save(folder / "plan.json")
    plan.draw(folder / "team.svg")
    show.title(plan)
    system = plan.load(seed=seed)
    rows = heldout_rows(recipe.heldout, seed)

    accuracy: dict[str, Any] = {"single": _accuracy(_solo(recipe, system), rows)}
    show.row("single agent, its own facts", [accuracy["single"]])
    accuracy["text_twin"] = _accuracy(system.text_twin(), rows)
    show.row("text twin", [None, None, accuracy["text_twin"]])
    accuracy["untrained"] = _by_round(system, rows)
    show.row("links untrained (aligned start)", accuracy["untrained"])
    training = _train_inner(system, recipe, seed, folder)
    accuracy["inner"] = _by_round(system, rows)
    show.row("after the inner loop", accuracy["inner"])
    training += _train_outer(system, recipe, seed, folder)
    accuracy |= _controls(system, rows, seed, show)
    report = {
        "accuracy": accuracy,
        "chance": 1 / len(WORDS),
        "link_parameters": plan.n_parameters,
        "training_seconds": round(training, 1),
        "seconds": 0.0,
        "seed": seed,
    }
    score = lm.Score(
        "accuracy",
        accuracy["trained"][-1],
        n=len(rows),
        data="held-out questions of the demo",
        settings={"rounds": ROUNDS, "seed": seed},
    )
    _save_and_reload(system, rows, folder, show, score)
    _write_pages(system, rows, accuracy, folder)
    show.figure(report, folder / "accuracy.png")
    report["seconds"] = round(time.perf_counter() - began, 1)
    _write(folder / "results.json", report)
    show.end(report, folder)
    return report


def _train_inner(system: lm.System, recipe: Recipe, seed: int, folder: Path) -> float:
    config = lm.InnerConfig(
        output_dir=str(folder / "training" / "inner"),
        max_steps=recipe.inner_steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.inner_rate,
        warmup_steps=0,
        max_grad_norm=recipe.clip,
        save_strategy="no",
        progress=False,
        seed=seed,
    )
    rows = inner_rows(recipe.inner_steps * recipe.batch_size, seed)
    began = time.perf_counter()
    lm.InnerTrainer(system, config, train_dataset=rows).train()
    return time.perf_counter() - began


def _train_outer(system: lm.System, recipe: Recipe, seed: int, folder: Path) -> float:
    config = lm.OuterConfig(
        output_dir=str(folder / "training" / "outer"),
        rounds=ROUNDS,
        train_links=recipe.train_links,
        round_weights=None if recipe.round_weights is None else list(recipe.round_weights),
        max_steps=recipe.outer_steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.outer_rate,
        warmup_steps=min(recipe.warmup, recipe.outer_steps),
        max_grad_norm=recipe.clip,
        save_strategy="no",
        progress=False,
        seed=seed,
    )
    rows = train_rows(recipe.outer_steps * recipe.batch_size, seed)
    began = time.perf_counter()
    lm.OuterTrainer(system, config, train_dataset=rows).train()
    return time.perf_counter() - began


def _controls(system: lm.System, rows: Rows, seed: int, show: Show) -> dict[str, Any]:
    """Measure the trained team by rounds and difficulty, and with messages zeroed or shuffled."""
    trained = _by_round(system, rows)
    show.row("after the outer loop", trained)
    by_difficulty = {}
    for difficulty in range(1, ROUNDS + 1):
        part = [row for row in rows if row["difficulty"] == difficulty]
        by_difficulty[str(difficulty)] = _by_round(system, part)
        plural = "" if difficulty == 1 else "s"
        show.row(
            f"  questions that need {difficulty} round{plural}", by_difficulty[str(difficulty)]
        )

    def zero(name: str, message_BKD: Tensor) -> Tensor:
        return torch.zeros_like(message_BKD)

    generator = torch.Generator().manual_seed(seed)

    def shuffle(name: str, message_BKD: Tensor) -> Tensor:
        return message_BKD[torch.randperm(len(message_BKD), generator=generator)]

    controls = {
        "null_message": _accuracy(system, rows, edit_message=zero),
        "shuffled_message": _accuracy(system, rows, edit_message=shuffle),
    }
    show.row("messages zeroed", [None, None, controls["null_message"]])
    show.row("messages shuffled over questions", [None, None, controls["shuffled_message"]])
    return {"trained": trained, "trained_by_difficulty": by_difficulty, **controls}


def _solo(recipe: Recipe, system: lm.System) -> lm.System:
    return single_agent(words=recipe.latent_steps).compile().load(reuse=system)


def _by_round(system: lm.System, rows: Rows) -> list[float]:
    return [_accuracy(system, rows, rounds=rounds) for rounds in range(1, ROUNDS + 1)]


def _accuracy(
    system: lm.System,
    rows: Rows,
    *,
    rounds: int | None = None,
    edit_message: Callable[[str, Tensor], Tensor] | None = None,
) -> float:
    result = system.run(rows, rounds=rounds, batch_size=256, edit_message=edit_message)
    hits = sum(correct(text, row) for text, row in zip(result.texts, rows, strict=True))
    return round(hits / len(rows), 4)


def _save_and_reload(
    system: lm.System, rows: Rows, folder: Path, show: Show, score: lm.Score
) -> None:
    """Save the team, load it again, and compare the answers.

    Raises:
        LatentMASError: the answers differ.
    """
    system.save_pretrained(folder / "team", scores=[score])
    again = lm.System.from_pretrained(folder / "team", reuse=system)
    some = rows[:64]
    if again.run(some).texts != system.run(some).texts:
        raise lm.LatentMASError("the saved and reloaded team gives different answers")
    show.note(f"saved and reloaded with the same answers: {folder / 'team'}")


def _write_pages(system: lm.System, rows: Rows, accuracy: Mapping[str, Any], folder: Path) -> None:
    """Write the pages of a few runs and of the training."""
    twin = system.text_twin()
    result, spoken = (one.run(rows[:SHOWN], record=("report",)) for one in (system, twin))
    result.report(folder / "run.html", twin=spoken)
    stages = {
        "links untrained": "untrained",
        "after the inner loop": "inner",
        "after the outer loop": "trained",
    }
    grid = {name: accuracy[key] for name, key in stages.items()}
    DepthMap(range(1, ROUNDS + 1), grid).save(folder / "training" / "depths.json")
    lm.training_report(folder / "training", folder / "training.html")


def _write(path: Path, report: Mapping[str, Any]) -> None:
    write_text_atomically(path, json_lib.dumps(report, indent=2) + "\n")
