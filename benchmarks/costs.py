"""The laws of cost, measured: time of latent steps and rounds, compile time, memory.

    python benchmarks/costs.py [--tiny] [--json] [--families llama,qwen3] [--device cuda]
        [--link KIND]

`latent steps` and `rounds`: seconds of the latent phase of a chain of three agents over m and over
R (on a CPU, of the process), with a line fitted to the medians; `residual` is the largest distance
from it, relative to the longest time. `compile`: a graph of 100 agents and 300 edges: first of its
process, after another one, and again. `memory`: the most bytes that tensors hold in a run, beside
what `System.explain` said; on a CPU counted over live storages by a dispatch mode, on CUDA by its
allocator.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.utils import logging

import latentmas as lm
from latentmas.environment import hardware
from latentmas.testing import tiny_backbone

HERE = Path(__file__).resolve().parent
FILLER = "Consider each part of the matter with care before you go on. "
LINEAR = {"linear_num_key_heads": 4, "linear_num_value_heads": 8}
WIDE = {**LINEAR, "linear_key_head_dim": 64, "linear_value_head_dim": 64}
"""Linear attention as wide, relative to D, as in published models."""


def chain(
    family: str, shape: dict[str, int], device: str = "cpu", kind: str = "recursive"
) -> lm.System:
    """Planner, critic and solver of one shape on backbones of their own."""
    more = WIDE if family == "qwen3_5_text" and shape["hidden"] >= 512 else {}
    backbones = [
        tiny_backbone(family, shape["hidden"], layers=shape["layers"], seed=seed, **more)
        for seed in range(3)
    ]
    text = (FILLER * 10)[: shape["prompt"] - shape["steps"] - 33]
    graph = lm.Graph("chain", inputs=["question"], rounds=3, latent_steps=shape["steps"])
    slots = ["{% if word %}{{ word }}{% endif %}", "{{ word }}", "{{ word }}"]
    names = ("planner", "critic", "solver")
    for name, backbone, slot in zip(names, backbones, slots, strict=True):
        prompt = text + "{{ question }}" + slot
        graph.add_agent(name, backbone, prompt=prompt, inner=kind, max_new_tokens=1)
    graph.connect("planner", "critic.word", link=kind)
    graph.connect("critic", "solver.word", link=kind)
    graph.feedback("solver", "planner.word", link=kind)
    return graph.output("solver").compile().load(device)


# ── time ──────────────────────────────────────────────────────────────────────────────────────


def medians(
    system: lm.System, samples: list[str], settings: list[dict[str, int]], repeats: int, device: str
) -> list[float]:
    """Median seconds of a run for each setting; they take turns.

    On a CPU the process's own seconds, which other programs do not lengthen.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    taken: list[list[float]] = [[] for _ in settings]
    system.run(samples, **settings[0])
    for _ in range(repeats):
        for seconds, setting in zip(taken, settings, strict=True):
            began = clock()
            system.run(samples, **setting)
            seconds.append(clock() - began)
    return [statistics.median(seconds) for seconds in taken]


def line(law: str, over: list[int], seconds: list[float]) -> dict[str, Any]:
    """Least squares through the medians, and how far they are from it."""
    fit = statistics.linear_regression(over, seconds)
    off = [abs(fit.intercept + fit.slope * x - y) for x, y in zip(over, seconds, strict=True)]
    return {
        "law": law,
        "over": over,
        "ms": [round(1000 * s, 1) for s in seconds],
        "ms_each": round(1000 * fit.slope, 2),
        "ms_fixed": round(1000 * fit.intercept, 2),
        "residual": round(max(off) / max(seconds), 4),
        "correlation": round(statistics.correlation(over, seconds), 5),
    }


def time_rows(
    shape: dict[str, int], samples: list[str], repeats: int, device: str, kind: str
) -> list[Any]:
    """Linear in latent steps at one round, and in rounds."""
    system = chain("llama", shape, device, kind)
    steps = [shape["steps"] * k // 4 for k in (1, 2, 3, 4, 6, 8)]
    rounds = [2, 3, 4, 5, 6]  # a feedback edge needs two
    settings = [{"latent_steps": m, "rounds": 2} for m in steps]
    by_steps = medians(system, samples, settings, repeats, device)
    by_rounds = medians(system, samples, [{"rounds": r} for r in rounds], repeats, device)
    return [line("latent steps", steps, by_steps), line("rounds", rounds, by_rounds)]


# ── compiling ─────────────────────────────────────────────────────────────────────────────────


def big_graph(agents: int, edges: int, kind: str, seed: int = 0) -> lm.Graph:
    """A random graph with feedback, on four small backbones; no two seeds share a prompt."""
    draw = random.Random(seed)
    pairs = [(i, i + 1) for i in range(agents - 1)]
    while len(pairs) < edges:
        pair = (draw.randrange(agents), draw.randrange(agents))
        if pair[0] != pair[1] and pair not in pairs:
            pairs.append(pair)
    graph = lm.Graph("big", inputs=["question"], rounds=3, latent_steps=16)
    backbones = [tiny_backbone(f, width) for f in ("llama", "qwen3") for width in (32, 64)]
    for i in range(agents):
        slots = [f"{{% if from_{a} %}}{{{{ from_{a} }}}}{{% endif %}}" for a, b in pairs if b == i]
        text = f"You are number {i} of {seed}. {{{{ question }}}}\n" + "\n".join(slots)
        graph.add_agent(f"a{i}", backbones[i % 4], prompt=text, inner=kind)
    for a, b in pairs:
        join = graph.feedback if a > b else graph.connect
        join(f"a{a}", f"a{b}.from_{a}", link=kind)
    return graph.output(f"a{agents - 1}")


def compile_seconds(agents: int, edges: int, kind: str) -> list[float]:
    """Seconds of three compilations: the process's first; another graph; that graph again."""
    graphs, taken = [big_graph(agents, edges, kind, seed) for seed in (0, 1)], []
    for graph in (graphs[0], graphs[1], graphs[1]):
        began = time.perf_counter()
        graph.compile()
        taken.append(time.perf_counter() - began)
    return taken


def compile_row(agents: int, edges: int, kind: str) -> dict[str, Any]:
    """Medians over five fresh processes. The first compilation also loads modules."""
    code = f"import costs; print(*costs.compile_seconds({agents}, {edges}, {kind!r}))"
    found = []
    environment = {**os.environ, "PYTHONPATH": str(Path(lm.__file__).parent.parent)}
    for _ in range(5):
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=HERE, env=environment
        )
        found.append([float(word) for word in done.stdout.split()[-3:]])
    first, new, again = (statistics.median(column) for column in zip(*found, strict=True))
    return {
        "law": "compile",
        "agents": agents,
        "edges": edges,
        "s_first_of_process": round(first, 3),
        "s_new_graph": round(new, 3),
        "s_again": round(again, 3),
    }


# ── memory ────────────────────────────────────────────────────────────────────────────────────


class LiveStorages(TorchDispatchMode):
    """Bytes of all storages that operations have made and that still live, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.see(made)
        return made

    def see(self, tensors: Any) -> None:
        """Count storages that were not seen before."""
        for tensor in tree_leaves(tensors):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._alive:
                self._alive[key] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._drop, key)
        self.peak = max(self.peak, self.now)

    def _drop(self, key: int) -> None:
        self.now -= self._alive.pop(key, 0)


def peak_bytes(
    system: lm.System, samples: list[str], device: str, executor: str | None = None
) -> int:
    """The most that tensors hold in a run, weights included."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        system.run(samples, executor=executor)
        return torch.cuda.max_memory_allocated()
    live = LiveStorages()
    for module in [system, *{id(b): b.model for b in system.agent_backbones.values()}.values()]:
        live.see([*module.parameters(), *module.buffers()])
    with live:
        system.run(samples, executor=executor)
    return live.peak


def memory_rows(
    family: str, shape: dict[str, int], samples: list[str], device: str, kind: str
) -> list[Any]:
    """Measured and explained, for states that grow and for buffers of fixed size."""
    fixed = "cuda_graph" if device.startswith("cuda") else "static"
    rows = []
    for executor in ("cached", fixed):
        system = chain(family, shape, device, kind)
        explained = system.explain(samples, "cpu", executor=executor)
        measured = peak_bytes(system, samples, device, executor)
        said, weights = explained.peak_memory, explained.weights
        assert said is not None and weights is not None
        beside = weights + explained.links
        row = {
            "law": "memory",
            "family": family,
            "executor": executor,
            "positions": max(row.positions or 0 for row in explained.rows),
            "mib_measured": round(measured / 2**20, 1),
            "mib_explained": round(said / 2**20, 1),
            "ratio": round(said / measured, 3),
            "ratio_beside_weights": round((said - beside) / (measured - beside), 3),
        }
        rows.append(row)
    return rows


def main() -> None:
    """Run everything and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", default="llama,qwen3,qwen3_5_text,gemma3_text")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--link", default="recursive", metavar="KIND", help="kind of all links")
    given = parser.parse_args()
    logging.disable_progress_bar()
    shape = {"hidden": 512, "layers": 8, "prompt": 256, "steps": 32, "batch": 4}
    agents, edges = 100, 300
    if given.tiny:
        shape = {"hidden": 64, "layers": 2, "prompt": 128, "steps": 8, "batch": 2}
        agents, edges = 20, 40
    samples = [f"What is {n} + {n}?" for n in range(shape["batch"])]
    families = given.families.split(",")
    rows = [
        *(r for f in families for r in memory_rows(f, shape, samples, given.device, given.link)),
        compile_row(agents, edges, given.link),
        *time_rows(shape, samples, given.repeats, given.device, given.link),
    ]
    machine = hardware()
    if given.json:
        print(
            json.dumps(
                {"hardware": machine, "shape": shape, "link": given.link, "rows": rows}, indent=2
            )
        )
        return
    print(machine, shape, given.link)
    for row in rows:
        print("\n".join(f"{name:>22}  {value}" for name, value in row.items()) + "\n")


if __name__ == "__main__":
    main()
