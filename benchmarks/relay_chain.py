"""Links of the paper's kind from a random start on a real model: what each training loop brings.

    python benchmarks/relay_chain.py [--recipes kept,passes] [--seeds 0,1,2] [--facts 1]
        [--latent-steps K] [--untrained] [--output FILE] [--work FOLDER] [--tiny]

The relay of `latentmas demo --real`, with links of the kind `recursive` throughout. Recipes:

- `kept`: the rollout loop on kept rollouts (`refresh_steps`), then the outer loop.
- `passes`: the inner, the edge and the rollout loop with parallel passes, then the outer loop.

Each measurement is one line of JSON, appended to FILE as soon as it is known: accuracy on held-out
questions with a Wilson 95 % interval, after the last loop also with the messages of other questions
(`shuffled`), the share of message rows that say the right word after real rollouts, and seconds. A
program that is started again leaves out what the file holds, and continues trainings at their last
checkpoints in FOLDER.
`--tiny` takes a small random model and a few steps, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

import latentmas as lm
from latentmas.demo.real import ANSWERS, READ, SMOLLM2
from latentmas.demo.relay import correct, split_rows
from latentmas.environment import hardware
from latentmas.evaluation import wilson
from latentmas.io import load_link_weights
from latentmas.testing import tiny_backbone
from latentmas.training import rollout_accuracy
from latentmas.training.speech import Speech
from latentmas.training.trainer.checkpoint import has_checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.results_file import append_line, read_lines

RECIPES = {
    "kept": ("rollout", "outer"),
    "passes": ("inner", "edge", "rollout", "outer"),
}
"""Name → its loops, in order."""


@dataclass(frozen=True)
class Sizes:
    """Rows, steps and latent steps."""

    facts: int = 1
    latent_steps: int = 8
    train_rows: int = 256
    heldout: int = 128
    rolled: int = 64
    """Held-out rows that `nearest_rollout` looks at."""
    kept_steps: int = 600
    refresh_steps: int = 100
    outer_steps: int = 60
    scale: float = 1.0
    """Of all numbers of steps."""


TINY = Sizes(latent_steps=3, train_rows=16, heldout=4, rolled=4, scale=0.02)


def team(backbone: lm.Backbone, latent_steps: int) -> lm.Graph:
    """The relay with links that start at random."""
    graph = lm.Graph("relay", inputs=["passage", "question"], rounds=1, latent_steps=latent_steps)
    graph.add_agent("reader", backbone, prompt=READ, inner="recursive")
    graph.add_agent("answerer", backbone, prompt=ANSWERS["team"], max_new_tokens=8)
    graph.connect("reader", "answerer.note", link="recursive")
    return graph.output("answerer")


class Lines:
    """What was measured, a line of JSON each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = {self._key(line) for line in read_lines(path)}

    def __contains__(self, line: Mapping[str, Any]) -> bool:
        return self._key(line) in self._known

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line and print it."""
        append_line(self._path, dict(line))
        print(json.dumps(line), flush=True)
        self._known.add(self._key(line))

    @staticmethod
    def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(line[name] for name in ("recipe", "facts", "seed", "stage", "latent_steps"))


class Chain:
    """One seed of one recipe: trains loop after loop, and measures the team after each."""

    def __init__(
        self,
        system: lm.System,
        recipe: str,
        seed: int,
        sizes: Sizes,
        work: Path,
        lines: Lines,
        *,
        untrained: bool = False,
    ) -> None:
        self.system, self.recipe, self.seed, self.sizes = system, recipe, seed, sizes
        self.folder = work / f"{recipe}-{sizes.facts}-{sizes.latent_steps}-{seed}"
        self.lines = lines
        self.rows, self.heldout = split_rows(
            sizes.train_rows, sizes.heldout, seed=seed, facts=sizes.facts
        )
        self.speech, self.untrained = Speech(system), untrained

    def run(self) -> None:
        """All stages."""
        twin = self.system.text_twin(max_new_tokens=self.sizes.latent_steps)
        self._note("text twin", lambda: self._accuracy(twin), recipe="")
        if self.untrained:
            self._note("untrained", self._measure, recipe="")
        for number, loop in enumerate(RECIPES[self.recipe], start=1):
            trained = self._train(loop, self.folder / f"{number}-{loop}")
            last = loop == RECIPES[self.recipe][-1]
            self._note(loop, lambda own=trained, last=last: own | self._measure(controls=last))

    def _note(self, stage: str, measure: Any, *, recipe: str | None = None) -> None:
        """Measure unless it is known; `recipe` is empty for what precedes all of them."""
        recipe = self.recipe if recipe is None else recipe
        key = {"recipe": recipe, "facts": self.sizes.facts, "seed": self.seed, "stage": stage}
        key["latent_steps"] = self.sizes.latent_steps
        if key not in self.lines:
            self.lines.add(key | measure())

    def _measure(self, *, controls: bool = False) -> dict[str, Any]:
        found = self._accuracy(self.system) | self._rolled()
        if controls:
            shuffled = self._accuracy(self.system, shuffled=True)
            found |= {f"shuffled_{name}": shuffled[name] for name in ("hits", "interval")}
        return found

    def _accuracy(self, system: lm.System, *, shuffled: bool = False) -> dict[str, Any]:
        """Share of held-out questions that are answered right."""
        rows = [{name: row[name] for name in ("passage", "question")} for row in self.heldout]
        edit = _of_another if shuffled else None
        texts = system.run(rows, edit_message=edit, seed=0).texts
        right = [correct(text, row) for text, row in zip(texts, self.heldout, strict=True)]
        share = sum(right) / len(right)
        interval = [round(end, 4) for end in wilson(share, len(right))]
        return {"n": len(right), "hits": round(share, 4), "interval": interval}

    def _rolled(self) -> dict[str, float]:
        """What messages say after real rollouts."""
        rows = self.heldout[: self.sizes.rolled]
        numbers = [-2 - place for place in range(len(rows))]
        found = rollout_accuracy(self.system, rows, speech=self.speech, numbers=numbers)
        return {name: round(value, 4) for name, value in found.items()}

    def _train(self, loop: str, folder: Path) -> dict[str, Any]:
        """A loop, or the links that it has left in an earlier run of the program."""
        made = folder / "made.json"
        if made.exists():
            load_link_weights(self.system, folder / "team")
            found: dict[str, Any] = json.loads(made.read_text(encoding="utf-8"))
            return found
        wall, cpu = time.perf_counter(), time.process_time()
        trainer = self._trainer(loop, folder)
        trainer.train(resume_from_checkpoint=has_checkpoint(folder) or None)
        logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        found = {
            "steps": trainer.state.global_step,
            "loss": round(sum(logged[-3:]) / max(1, len(logged[-3:])), 4),
            "train_cpu_seconds": round(time.process_time() - cpu, 1),
            "train_seconds": round(time.perf_counter() - wall, 1),
        }
        self.system.save_pretrained(folder / "team")
        made.write_text(json.dumps(found), encoding="utf-8")
        return found

    def _trainer(self, loop: str, folder: Path) -> Any:
        """The rates of `passes` are the loops' own; outer steps are those of the demo."""
        sizes = self.sizes
        if loop == "outer":
            options = self._options(folder, sizes.outer_steps, 16, learning_rate=1e-3)
            options |= {"warmup_steps": 8, "max_grad_norm": 10.0, "probe_stability": False}
            config: Any = lm.OuterConfig(**options)
            return lm.OuterTrainer(self.system, config, train_dataset=self.rows)
        if loop == "inner":
            texts = self.speech.speak(self.rows, range(len(self.rows)))
            rows = [row | {"said": own["reader", 1]} for row, own in _pairs(self.rows, texts)]
            targets = {"reader": "said", "answerer": "answer"}
            config = lm.InnerConfig(**self._options(folder, 200, 16, targets=targets))
            return lm.InnerTrainer(self.system, config, train_dataset=rows)
        if loop == "edge":
            config = lm.EdgeConfig(**self._options(folder, 200, 16))
            return lm.EdgeTrainer(self.system, config, train_dataset=self.rows)
        options = self._options(folder, 50, 16)
        if self.recipe == "kept":
            kept = {"refresh_steps": max(1, int(sizes.refresh_steps * sizes.scale))}
            rates = {"learning_rate": 3e-3, "max_grad_norm": 1.0}
            options = self._options(folder, sizes.kept_steps, 32, **kept, **rates)
        return lm.RolloutTrainer(self.system, lm.RolloutConfig(**options), train_dataset=self.rows)

    def _options(self, folder: Path, steps: int, batch: int, **more: Any) -> dict[str, Any]:
        return {
            "output_dir": str(folder),
            "max_steps": max(2, int(steps * self.sizes.scale)),
            "per_device_train_batch_size": min(batch, self.sizes.train_rows),
            "logging_steps": 5,
            "telemetry": False,
            "progress": False,
            "seed": self.seed,
            "use_cpu": True,
        } | more


def _pairs(rows: Sequence[Any], texts: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(rows, texts, strict=True))


def _of_another(name: str, message_BKD: Tensor) -> Tensor:
    return message_BKD.roll(1, 0)


def main() -> None:
    """Run what is asked for and not yet known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipes", default="kept,passes")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--facts", type=int, default=1)
    parser.add_argument("--latent-steps", type=int, help="K; None: 8 a fact")
    parser.add_argument("--output", type=Path, default=Path("relay_chain.jsonl"))
    parser.add_argument("--work", type=Path, default=Path("relay_chain"))
    parser.add_argument("--untrained", action="store_true", help="measure random links too")
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that it works")
    given = parser.parse_args()
    recipes = given.recipes.split(",")
    if unknown := set(recipes) - set(RECIPES):
        parser.error(f"no recipe {', '.join(unknown)}; choose among {', '.join(RECIPES)}")
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    sizes = TINY if given.tiny else Sizes()
    steps = given.latent_steps or sizes.latent_steps * given.facts
    sizes = replace(sizes, facts=given.facts, latent_steps=steps)
    backbone = tiny_backbone("llama", 32) if given.tiny else lm.Backbone(SMOLLM2, dtype="float32")
    print(json.dumps({"hardware": hardware(), "threads": 1}), flush=True)
    lines, plan, base = Lines(given.output), team(backbone, steps).compile(), None
    for recipe in recipes:
        for seed in map(int, given.seeds.split(",")):
            base = lm.System.load(plan, seed=seed, device="cpu", reuse=base)
            chain = Chain(base, recipe, seed, sizes, given.work, lines, untrained=given.untrained)
            chain.run()


if __name__ == "__main__":
    main()
