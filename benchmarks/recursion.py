"""What each stage of training does on the demo's task: stages, depths, link designs.

    python benchmarks/recursion.py [--tiny] [--json] [--png heat.png] [--only stages,depths,designs]

Three agents chase pointers through private tables (docs/demo.md); accuracy on held-out questions
after r = 1, 2, 3 rounds, mean and standard deviation over seeds. The ceilings are 1/3, 2/3 and 1;
chance is 1/24. Links start at random unless a row says otherwise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from transformers.utils import logging

import latentmas as lm
from latentmas.demo.run import team
from latentmas.demo.task import correct, heldout_rows, inner_rows, train_rows
from latentmas.environment import hardware
from latentmas.viz import DepthMap

Accuracy = list[float]


class Bench:
    """Sizes, and what the experiments share."""

    def __init__(self, tiny: bool) -> None:
        self.seeds = (0,) if tiny else (0, 1, 2)
        self.heldout = 48 if tiny else 1024
        self.scale = 0.02 if tiny else 1.0
        self.folder = tempfile.mkdtemp(prefix="recursion-")
        self._base: lm.System | None = None

    def system(self, seed: int, *, init: str = "default", kind: str = "recursive") -> lm.System:
        """The demo's team with fresh links."""
        spec = team().spec()
        link = {"init": init, "kind": kind}
        edges = [e.model_copy(update={"link": e.link.model_copy(update=link)}) for e in spec.edges]
        agents = [
            a.model_copy(update={"inner": a.inner.model_copy(update={"kind": kind})})
            for a in spec.agents
        ]
        plan = lm.Graph.from_spec(spec.replace(edges=edges, agents=agents)).compile()
        system = lm.System.load(plan, seed=seed, reuse=self._base)
        self._base = self._base or system
        return system

    def accuracy(self, system: lm.System, seed: int) -> Accuracy:
        """Share of right answers after 1, 2 and 3 rounds."""
        rows = heldout_rows(self.heldout, seed)
        found = []
        for rounds in (1, 2, 3):
            result = system.run(rows, rounds=rounds, max_new_tokens=1, batch_size=512)
            hits = [correct(text, row) for text, row in zip(result.texts, rows, strict=True)]
            found.append(sum(hits) / len(hits))
        return found

    def _options(self, steps: int, seed: int, batch: int, **more: Any) -> dict[str, Any]:
        return {
            "output_dir": self.folder,
            "max_steps": max(1, int(steps * self.scale)),
            "per_device_train_batch_size": batch,
            "warmup_steps": 10,
            "use_cpu": True,
            "max_grad_norm": 1.0,
            "save_strategy": "no",
            "telemetry": False,
            "seed": seed,
        } | more

    def inner(self, system: lm.System, seed: int, steps: int, rate: float = 3e-3) -> None:
        """The inner loop."""
        config = lm.InnerConfig(**self._options(steps, seed, 64, learning_rate=rate))
        lm.InnerTrainer(system, config, train_dataset=inner_rows(64 * steps, seed)).train()

    def edges(self, system: lm.System, seed: int, steps: int, rate: float = 3e-3) -> None:
        """The edge loop, on the team's own words."""
        config = lm.EdgeConfig(**self._options(steps, seed, 64, learning_rate=rate))
        lm.EdgeTrainer(system, config, train_dataset=train_rows(2048, seed)).train()

    def outer(self, system: lm.System, seed: int, steps: int, rate: float, **more: Any) -> None:
        """The outer loop."""
        batch = 8 if more.get("recipe") == "released" else 64
        options = self._options(steps, seed, batch, learning_rate=rate, probe_stability=False)
        rows = train_rows(batch * steps, seed)
        if more.get("recipe") == "released":
            rows = [row | text for row, text in zip(rows, inner_rows(len(rows), seed), strict=True)]
        lm.OuterTrainer(system, lm.OuterConfig(**(options | more)), train_dataset=rows).train()


def stages(bench: Bench) -> list[dict[str, Any]]:
    """Each stage alone and in line, from random links."""

    def line(system: lm.System, seed: int) -> None:
        bench.inner(system, seed, 200)
        bench.edges(system, seed, 100)
        bench.outer(system, seed, 60, 5e-5, train_links="all")

    recipes: dict[str, Any] = {
        "untrained": lambda system, seed: None,
        "inner loop alone, 200 steps": lambda s, seed: bench.inner(s, seed, 200),
        "outer loop alone, on-policy, 120 steps at 1e-3": lambda s, seed: bench.outer(
            s, seed, 120, 1e-3, train_links="all"
        ),
        "outer loop alone, on-policy, rounds 1, 2, 3 in turn": lambda s, seed: bench.outer(
            s, seed, 120, 1e-3, train_links="all", rounds=[1, 2, 3]
        ),
        "outer loop alone, released, 120 steps at 1e-3": lambda s, seed: bench.outer(
            s, seed, 120, 1e-3, train_links="all", recipe="released"
        ),
        "edge loop alone, 100 steps": lambda s, seed: bench.edges(s, seed, 100),
        "inner 200, edges 100, outer on-policy 60 at 5e-5": line,
    }
    return [_row(bench, "stages", name, recipe) for name, recipe in recipes.items()]


def depths(bench: Bench) -> list[dict[str, Any]]:
    """Rounds of training against rounds of running, from a weak start of 8 steps of edge loop."""

    def train(rounds: int) -> Any:
        def recipe(system: lm.System, seed: int) -> None:
            bench.edges(system, seed, 8)
            links = "outer" if rounds > 1 else [*_forward(system)]
            bench.outer(system, seed, 80, 3e-4, rounds=rounds, train_links=links)

        return recipe

    start = _row(bench, "depths", "weak start", lambda s, seed: bench.edges(s, seed, 8))
    return [start, *(_row(bench, "depths", f"trained at {n}", train(n)) for n in (1, 2, 3))]


def designs(bench: Bench) -> list[dict[str, Any]]:
    """Link kinds, inner and outer alike, after the inner and the edge loop."""

    def recipe(system: lm.System, seed: int) -> None:
        bench.inner(system, seed, 100)
        bench.edges(system, seed, 60)

    kinds = ("linear", "linear_residual", "mlp", "mlp_residual", "recursive")
    return [_row(bench, "designs", kind, recipe, kind=kind) for kind in kinds]


def _forward(system: lm.System) -> list[str]:
    return [f"outer.{edge.id}" for edge in system.plan.graph.edges if not edge.delay]


def _row(bench: Bench, table: str, name: str, recipe: Any, **start: Any) -> dict[str, Any]:
    found, began = [], time.perf_counter()
    for seed in bench.seeds:
        system = bench.system(seed, **start)
        recipe(system, seed)
        found.append(bench.accuracy(system, seed))
    columns = list(zip(*found, strict=True))
    row = {
        "table": table,
        "name": name,
        "mean": [round(statistics.mean(column), 3) for column in columns],
        "sd": [round(statistics.pstdev(column), 3) for column in columns],
        "seeds": len(found),
        "seconds": round((time.perf_counter() - began) / len(found), 1),
    }
    cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(row["mean"], row["sd"], strict=True)]
    print(f"{name:<58}" + "  ".join(cells) + f"   {row['seconds']} s", flush=True)
    return row


def heat_map(rows: list[dict[str, Any]], path: Path) -> None:
    """Rounds of training against rounds of running, as a picture or as JSON."""
    grid = {row["name"]: row["mean"] for row in rows if row["table"] == "depths"}
    DepthMap([1, 2, 3], grid).save(path)


def main() -> None:
    """Run the experiments and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that it works")
    parser.add_argument("--json", type=Path, help="write one JSON object there")
    parser.add_argument("--png", type=Path, help="heat map of the depths: .png or .json")
    parser.add_argument("--only", default="stages,depths,designs")
    given = parser.parse_args()
    logging.disable_progress_bar()
    bench, rows = Bench(given.tiny), list[dict[str, Any]]()
    for name in given.only.split(","):
        print(f"\n{name}: accuracy at r = 1, 2, 3")
        rows += {"stages": stages, "depths": depths, "designs": designs}[name](bench)
    machine = hardware()
    if given.json:
        given.json.write_text(json.dumps({"hardware": machine, "rows": rows}, indent=2) + "\n")
    if given.png:
        heat_map(rows, given.png)


if __name__ == "__main__":
    main()
