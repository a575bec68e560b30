"""The relay on a real model: tokenizers, latent steps, training loops, temperatures, side by side.

    python benchmarks/relay_table.py [--parts tokenizers,steps,loops,softmax] [--seeds 0,1,2]
        [--output FILE] [--work FOLDER] [--summary] [--tiny] [--json]

Teams and task are those of `latentmas demo --real`. Each measured cell is one line of JSON,
appended to FILE as soon as it is known; a program that is started again leaves out what the file
holds, and takes trained links from FOLDER. `hits` has a digit for each held-out question, so that
any two cells with the same questions can be compared in pairs. `--summary` prints tables of a file.

- `tokenizers`: A is the model, B30 and B70 are the same model without the rarest 30 and 70 % of its
  tokenizer's merges; teams of two of them, untrained, against their text twins.
- `steps`: K latent steps; the text twin of as many tokens, and the team before and after training.
- `loops`: other trainings than the outer loop alone, K = 16.
- `softmax`: temperature and `top_k` of both links, untrained, K = 16.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer
from transformers.utils import logging

import latentmas as lm
from latentmas.backbones import LoadedBackbone
from latentmas.demo.real import (
    SMOLLM2,
    RealRecipe,
    answer,
    lone_answerer,
    outer_config,
    relay_team,
)
from latentmas.demo.relay import split_rows
from latentmas.engine import Inner, Packed
from latentmas.engine.executors.cached import Cached
from latentmas.environment import hardware, versions
from latentmas.evaluation import paired_difference, wilson
from latentmas.io import load_link_weights

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.results_file import append_line, read_lines

PARTS = ("tokenizers", "steps", "loops", "softmax")
REMOVED = {"B30": 0.3, "B70": 0.7}
"""Share of the merges that a model lacks, from the rarest on."""
READ_STEPS = {"B70": 24}
"""K of readers whose tokens are shorter; others take the recipe's 16."""
PAIRS = {
    "B30": (("A", "B30"), ("B30", "A")),
    "B70": (("A", "A"), ("A", "B70"), ("B70", "A"), ("B70", "B70")),
}
"""Reader and answerer, by the model that is in question."""
SIZES = (8, 4, 32)
"""K; the demo has the cells of 16."""
LOOP_STEPS = 40
"""Steps of the edge and the rollout loop."""
LOOP_ROWS = 16
"""Batches of rows that they see."""
SOFTMAX: dict[int, tuple[tuple[float, int | None], ...]] = {
    1: ((0.25, None), (0.5, 1)),
    2: ((0.25, None), (0.5, 1), (0.7, None), (1.0, None), (0.5, 10), (0.5, 50)),
}
"""Temperature and `top_k` by number of facts; the default, 0.5 and None, is in other cells."""


class Kept(Cached):
    """`cached`, with the states of each batch of prompts kept.

    For teams that differ in outer links alone: they share what the reader thinks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[tuple[int, int, bytes], Tensor] = {}

    def rollout(
        self, backbone: LoadedBackbone, inner: Inner, prompt: Packed, latent_steps: int
    ) -> Tensor:
        """The raw states h_BKD, computed once for equal prompts."""
        assert prompt.ids_BT is not None
        key = id(backbone), latent_steps, prompt.ids_BT.numpy().tobytes()
        if key not in self.states:
            self.states[key] = super().rollout(backbone, inner, prompt, latent_steps)
        return self.states[key]


def fewer_merges(loaded: LoadedBackbone, folder: Path, share: float, seed: int = 0) -> int:
    """Save a model with a smaller vocabulary and other ids; its size is returned.

    The rarest merges of the byte-pair encoding are removed with their tokens. The rows of the
    tokens that remain keep their values, and all but the special tokens change places.

    Args:
        loaded: a model with a byte-pair tokenizer, whose special tokens have the first ids.
        folder: where it is saved.
        share: of the merges that are removed.
        seed: of the order of the ids.
    """
    content = json.loads(loaded.tokenizer.backend_tokenizer.to_str())
    bpe = content["model"]
    kept = len(bpe["merges"]) - round(share * len(bpe["merges"]))
    made = ["".join(one.split(" ") if isinstance(one, str) else one) for one in bpe["merges"]]
    dropped = set(made[kept:]) - set(made[:kept])
    special = [token["id"] for token in content["added_tokens"]]
    if sorted(special) != list(range(len(special))):
        raise ValueError("the special tokens do not have the first ids")
    names = {id: token for token, id in bpe["vocab"].items()}
    others = [id for id, token in names.items() if token not in dropped and id not in special]
    random.Random(seed).shuffle(others)
    order = sorted(special) + others  # the old id of each new one
    bpe["merges"] = bpe["merges"][:kept]
    bpe["vocab"] = {names[old]: new for new, old in enumerate(order) if old in names}

    model = copy.deepcopy(loaded.model)
    rows = torch.tensor(order)
    tables = {id(table): table for table in _tables(model)}
    for table in tables.values():
        table.weight = torch.nn.Parameter(table.weight.data[rows].clone())
    model.config.vocab_size = len(order)
    model.tie_weights()
    model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    text = json.dumps(content, ensure_ascii=False)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    return len(order)


def _tables(model: Any) -> list[Any]:
    return [model.get_input_embeddings(), model.get_output_embeddings()]


@dataclass(frozen=True)
class Job:
    """Cells that are measured together, because they share a team."""

    name: str
    cells: tuple[str, ...]
    run: Callable[[Table], None]


class Table:
    """Measures cells, once each, and keeps them in a file."""

    def __init__(self, path: Path, work: Path, source: str, recipe: RealRecipe) -> None:
        self.path, self.work, self.recipe, self.source = path, work, recipe, source
        self.a = lm.Backbone(source, dtype="float32")
        self.cells = read_cells(path)
        self._base: lm.System | None = None

    def load(self, graph: lm.Graph, seed: int = 0) -> lm.System:
        """A team; the models are loaded once."""
        system = graph.compile().load(seed=seed, reuse=self._base)
        if self._base is None or len(system.agent_backbones) > len(self._base.agent_backbones):
            self._base = system
        return system

    def model(self, name: str) -> lm.Backbone:
        """A, or A with a smaller vocabulary."""
        if name == "A":
            return self.a
        folder = self.work / name
        if not (folder / "tokenizer.json").exists():
            loaded = self.load(lone_answerer("alone", self.a, self.recipe)).backbone_of("answerer")
            size = fewer_merges(loaded, folder, REMOVED[name])
            sizes = {"A": len(loaded.tokenizer), name: size}
            found = {"A": loaded.tokenizer, name: AutoTokenizer.from_pretrained(folder)}
            lengths = {name: self._tokens_a_word(one) for name, one in found.items()}
            self.write(
                {"cell": f"tokenizers/{name}/size", "tokens": sizes, "tokens_a_word": lengths}
            )
        return lm.Backbone(str(folder), dtype="float32")

    def _tokens_a_word(self, tokenizer: Any) -> float:
        texts = [row["passage"] for row in self.rows(0)[1]]
        words = sum(len(text.split()) for text in texts)
        ids = tokenizer(texts, add_special_tokens=False).input_ids
        return round(sum(map(len, ids)) / words, 3)

    def rows(self, seed: int, facts: int | None = None) -> tuple[list[Any], list[Any]]:
        """Rows to train on, and held-out ones."""
        recipe = self.recipe
        return split_rows(recipe.train_rows, recipe.heldout, seed=seed, facts=facts or recipe.facts)

    def measure(
        self,
        cell: str,
        system: lm.System,
        rows: Sequence[Mapping[str, Any]],
        *,
        shuffled: bool = False,
        **options: Any,
    ) -> None:
        """Run a team over rows and keep what came out, unless the file has it."""
        if cell in self.cells:
            return
        lengths: list[int] = []

        def look(name: str, message: Tensor) -> Tensor:
            lengths.extend((message != 0).any(-1).sum(1).tolist())
            return message.roll(1, 0) if shuffled else message

        began, busy = time.perf_counter(), time.process_time()
        hits, result = answer(system, rows, edit_message=look, **options)
        share = sum(hits) / len(hits)
        said = sum(turn.new_tokens for turn in result.accounting if turn.agent == "reader")
        self.write(
            {
                "cell": cell,
                "accuracy": round(share, 4),
                "interval": [round(bound, 4) for bound in wilson(share, len(hits))],
                "n": len(hits),
                "message_length": round((sum(lengths) or said) / len(hits), 2),
                "seconds": round(time.perf_counter() - began, 1),
                "cpu_seconds": round(time.process_time() - busy, 1),
                "hits": "".join(str(int(hit)) for hit in hits),
            }
        )

    def train(self, cell: str, system: lm.System, make: Any, config: Any, rows: Any) -> None:
        """Train a team's links, or take them from an earlier session."""
        team = self.work / cell / "team"
        if (team / "latentmas.json").exists():
            load_link_weights(system, team)
            return
        config.use_cpu, config.progress = True, False
        began, busy = time.perf_counter(), time.process_time()
        outcome = make(system, config, train_dataset=rows).train()
        system.save_pretrained(team)
        self.write(
            {
                "cell": cell,
                "steps": outcome.global_step,
                "loss": round(outcome.training_loss, 4),
                "seconds": round(time.perf_counter() - began, 1),
                "cpu_seconds": round(time.process_time() - busy, 1),
            }
        )

    def write(self, cell: dict[str, Any]) -> None:
        """Append one line to the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self.path, cell)
        if "cell" in cell:
            self.cells[cell["cell"]] = cell


def read_cells(path: Path) -> dict[str, dict[str, Any]]:
    """The cells of a file, by name; empty if the file does not exist."""
    return {line["cell"]: line for line in read_lines(path) if "cell" in line}


def tokenizers(table: Table, *, facts: int, other: str) -> None:
    """Teams of A and another model, untrained, and their text twins."""
    heldout = table.rows(0, facts)[1]
    for pair in PAIRS[other]:
        kept = Kept()
        steps = READ_STEPS.get(pair[0], table.recipe.latent_steps)
        recipe = replace(table.recipe, facts=facts, latent_steps=steps)
        name = f"tokenizers/facts{facts}/{'-'.join(pair)}"
        reader, answerer = map(table.model, pair)
        system = table.load(relay_team(reader, answerer, recipe))
        table.measure(f"{name}/untrained", system, heldout, executor=kept)
        table.measure(f"{name}/twin", system.text_twin(max_new_tokens=steps), heldout)
        alone = table.load(lone_answerer("ceiling", answerer, recipe))
        table.measure(f"tokenizers/facts{facts}/ceiling/{pair[1]}", alone, heldout)


def latent_steps(table: Table, *, steps: int, seed: int) -> None:
    """One number of latent steps: text twin, and the team before and after training."""
    name, recipe = f"steps/K{steps}/seed{seed}", replace(table.recipe, latent_steps=steps)
    train, heldout = table.rows(seed)
    system, kept = table.load(relay_team(table.a, table.a, recipe), seed), Kept()
    table.measure(f"{name}/twin", system.text_twin(max_new_tokens=steps), heldout)
    table.measure(f"{name}/untrained", system, heldout, executor=kept)
    config = outer_config(table.work / name, recipe, seed)
    table.train(f"{name}/training", system, lm.OuterTrainer, config, train)
    table.measure(f"{name}/trained", system, heldout, executor=kept)
    table.measure(f"{name}/shuffled", system, heldout, shuffled=True, executor=kept)


def loops(table: Table, *, seed: int) -> None:
    """Trainings of the same team, and of one whose reader has an inner correction."""
    name, recipe = f"loops/seed{seed}", table.recipe
    train, heldout = table.rows(seed)
    some, steps = train[: LOOP_ROWS * recipe.batch_size], min(LOOP_STEPS, recipe.steps)
    common: dict[str, Any] = {
        "max_steps": steps,
        "per_device_train_batch_size": recipe.batch_size,
        "seed": seed,
    }
    kept = Kept()

    def outer(cell: str, system: lm.System, executor: Kept) -> None:
        config = outer_config(table.work / cell, recipe, seed)
        table.train(f"{cell}/training", system, lm.OuterTrainer, config, train)
        table.measure(f"{cell}/trained", system, heldout, executor=executor)
        table.measure(f"{cell}/shuffled", system, heldout, shuffled=True, executor=executor)

    cell = f"{name}/edge"
    system = table.load(relay_team(table.a, table.a, recipe), seed)
    config: Any = lm.EdgeConfig(str(table.work / cell), **common)
    table.train(f"{cell}/training", system, lm.EdgeTrainer, config, some)
    table.measure(f"{cell}/trained", system, heldout, executor=kept)
    outer(f"{name}/edge-outer", system, kept)

    cell = f"{name}/rollout"
    system = table.load(relay_team(table.a, table.a, recipe), seed)
    config = lm.RolloutConfig(str(table.work / cell), train_links="outer", **common)
    table.train(f"{cell}/training", system, lm.RolloutTrainer, config, some)
    table.measure(f"{cell}/trained", system, heldout, executor=kept)
    outer(f"{name}/rollout-outer", system, kept)

    cell, anew = f"{name}/inner", Kept()
    system = table.load(relay_team(table.a, table.a, recipe, inner={"residual": True}), seed)
    config = lm.RolloutConfig(str(table.work / cell), train_links="inner", **common)
    table.train(f"{cell}/training", system, lm.RolloutTrainer, config, some)
    table.measure(f"{cell}/trained", system, heldout, executor=anew)
    outer(f"{name}/inner-outer", system, anew)


def softmax(table: Table, *, facts: int) -> None:
    """Both links' temperature, and how many tokens they mix."""
    n = table.recipe.heldout // (2 if facts == 2 else 1)
    for temperature, top_k in SOFTMAX[facts]:
        options: dict[str, Any] = {"temperature": temperature, "top_k": top_k}
        graph = relay_team(table.a, table.a, table.recipe, inner=options, outer=options)
        cell = f"softmax/facts{facts}/temperature{temperature}/top{top_k}"
        table.measure(cell, table.load(graph), table.rows(0, facts)[1][:n])


def jobs(parts: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """What is measured, the most important first."""
    four = ("twin", "untrained", "trained", "shuffled")
    found = []
    for other, pairs in PAIRS.items():
        teams = tuple(f"{'-'.join(pair)}/twin" for pair in pairs)
        for facts in (2, 1):
            run: Any = partial(tokenizers, facts=facts, other=other)
            found.append(Job(f"tokenizers/facts{facts}", teams, run))
    for seed in seeds:
        for steps in SIZES:
            run = partial(latent_steps, steps=steps, seed=seed)
            found.append(Job(f"steps/K{steps}/seed{seed}", four, run))
        if seed == seeds[0]:
            for facts, options in SOFTMAX.items():
                cells = tuple(f"temperature{t}/top{k}" for t, k in options)
                found.append(Job(f"softmax/facts{facts}", cells, partial(softmax, facts=facts)))
        last = ("edge-outer/shuffled", "rollout-outer/shuffled", "inner-outer/shuffled")
        found.append(Job(f"loops/seed{seed}", last, partial(loops, seed=seed)))
    return [job for job in found if job.name.split("/")[0] in parts]


def summary(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table of all cells, with the difference from the text twin in pairs."""
    lines = [
        "| cell | n | right | 95 % interval | less the twin | rows | CPU s |",
        "|" + "---|" * 7,
    ]
    for name, cell in cells.items():
        if "accuracy" not in cell:
            continue
        twin, less = cells.get(f"{name.rpartition('/')[0]}/twin"), ""
        if twin is not None and twin is not cell:
            pair = paired_difference(*([int(hit) for hit in one["hits"]] for one in (cell, twin)))
            less = f"{pair.mean:+.3f} [{pair.interval[0]:+.3f}, {pair.interval[1]:+.3f}]"
        low, high = cell["interval"]
        lines.append(
            f"| {name} | {cell['n']} | {cell['accuracy']:.3f} | [{low:.3f}, {high:.3f}] | {less} "
            f"| {cell['message_length']} | {cell['cpu_seconds']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, and print the table."""
    given, parts, seeds = arguments()
    logging.disable_progress_bar()
    torch.set_flush_denormal(True)  # low temperatures make some, and a CPU is slow with them
    with tempfile.TemporaryDirectory() as folder:
        recipe = RealRecipe()
        if given.tiny:
            from latentmas.testing import tiny_backbone

            recipe = replace(recipe, train_rows=8, steps=2, heldout=4, batch_size=4, latent_steps=4)
            given.source, seeds = tiny_backbone("llama", 32).source, seeds[:1]
            given.output, given.work = Path(folder) / "cells.jsonl", Path(folder) / "work"
        if not given.summary:
            table = Table(given.output, given.work, given.source, recipe)
            machine = given.machine or hardware()
            table.write({"machine": machine, "versions": versions(), "recipe": vars(recipe)})
            for job in jobs(parts, seeds):
                if not {f"{job.name}/{cell}" for cell in job.cells} <= set(table.cells):
                    job.run(table)
        cells = read_cells(given.output)
    print(json.dumps({"cells": cells}, indent=2) if given.json else summary(cells))


def arguments() -> tuple[argparse.Namespace, list[str], list[int]]:
    """The command line; parts and seeds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--source", default=SMOLLM2, help="a model, for both agents")
    parser.add_argument("--machine", default="", help="the machine in words, for the file")
    parser.add_argument("--output", type=Path, default=Path("relay-table/cells.jsonl"))
    parser.add_argument("--work", type=Path, default=Path("relay-table/work"))
    parser.add_argument("--summary", action="store_true", help="print the tables of a file")
    parser.add_argument("--tiny", action="store_true", help="a small model, to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    parts = given.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}; choose among {', '.join(PARTS)}")
    return given, parts, [int(seed) for seed in given.seeds.split(",")]


if __name__ == "__main__":
    main()
