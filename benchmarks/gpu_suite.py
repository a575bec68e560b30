"""The paper's systems at their true shapes, random weights: every way to run them, side by side.

    python benchmarks/gpu_suite.py [--systems sequential_light,…] [--tiny] [--json]

For each system: the published loop with reloads ("as shipped") and with resident models, the cached
and the graph executor, the same graph in text on the same engine, and the roofline's floor; before
them, the graphs captured in two runs, in a warm-up and in a run after it. The
latent phase is a run that writes one token; text is that many tokens more. No download; about six
minutes on one H200. `--tiny` runs small shapes on a CPU, with `static` in the place of graphs.

Executors take turns; medians of `--repeats`, but one for the published loop. Each row says how
often it was measured. What the time limit (`--limit` seconds) leaves no time for is named, not
guessed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers.utils import logging

import latentmas as lm
from latentmas.backbones import LoadedBackbone
from latentmas.engine import Executor, executors, kept_memory
from latentmas.engine.executors.reference import Reference
from latentmas.environment import hardware
from latentmas.testing import random_system, tiny_backbone

WORD = "word "
SYSTEMS = {
    "sequential_light": (48, 32),
    "sequential_scaled": (32, 16),
    "mixture": (32, 16),
    "distillation": (32, 16),
    "deliberation": (32, 16),
}
"""Name → the paper's latent steps and a batch size."""


class AsShipped(Reference):
    """The published loop: models are brought to the device anew for each turn.

    The published code also reads them from disk and builds them; that is left out.
    """

    groups = False

    def __init__(self) -> None:
        super().__init__("column")
        self._host: dict[int, list[torch.Tensor]] = {}

    def prepare(self, backbone: LoadedBackbone) -> None:
        """Copy the weights over from the host's memory."""
        weights = list(backbone.model.parameters())
        if id(backbone) not in self._host:
            self._host[id(backbone)] = [weight.data.cpu() for weight in weights]
        for weight, value in zip(weights, self._host[id(backbone)], strict=True):
            weight.data = value.to(weight.device)


class Suite:
    """Times ways to run, as long as there is time."""

    def __init__(self, limit: float, repeats: int, device: str) -> None:
        self.began, self.limit, self.repeats, self.device = time.monotonic(), limit, repeats, device
        self.left_out: list[str] = []

    def seconds(self, way: Callable[[], Any]) -> float:
        """Of one call, the device's work included."""
        began = time.perf_counter()
        way()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def medians(self, name: str, ways: dict[str, tuple[int, Callable[[], Any]]]) -> dict[str, Any]:
        """Median and count of each way; they take turns, after a first call that is not counted."""
        taken: dict[str, list[float]] = {way: [] for way in ways}
        last: dict[str, float] = {}
        for repeat in range(max(count for count, _ in ways.values())):
            for way, (count, call) in ways.items():
                if repeat >= count:
                    continue
                expected = last.get(way, 0.0) * (2 if repeat == 0 else 1)
                if time.monotonic() - self.began + expected > self.limit:
                    self.left_out.append(f"{name}: {way}, repeat {repeat + 1}")
                    continue
                if repeat == 0 and count > 1:
                    self.seconds(call)  # graphs are captured, libraries choose their kernels
                last[way] = self.seconds(call)
                taken[way].append(last[way])
        return {
            way: (round(statistics.median(times), 4), len(times))
            for way, times in taken.items()
            if times
        }


def sample(tokens: int) -> str:
    """A question of about that many bytes, which are tokens here."""
    return (WORD * (tokens // len(WORD) + 1))[:tokens]


def built(name: str, tiny: bool, device: str) -> tuple[lm.System, int]:
    """A system and a batch size."""
    steps, batch = SYSTEMS[name]
    if not tiny:
        graph = getattr(lm.templates, name)(rounds=3, latent_steps=steps)
        return random_system(graph.compile(), device=device), batch
    small = tiny_backbone("qwen3", 64)
    how: dict[str, Any] = {"latent_steps": 4, "link": "recursive", "inner": "recursive"}
    makers: dict[str, Callable[[], lm.Graph]] = {
        "sequential_light": lambda: lm.templates.sequential(
            planner=small, critic=tiny_backbone("llama", 32), solver=small, **how
        ),
        "mixture": lambda: lm.templates.mixture(
            experts={"math": small, "code": small}, summarizer=small, **how
        ),
    }
    return makers[name]().compile().load(device), 2


def ways_of(
    system: lm.System, samples: list[str], device: str, repeats: int
) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Executor → how often, and the run."""

    def run(executor: str | Executor) -> Callable[[], Any]:
        return lambda: system.run(samples, executor=executor, max_new_tokens=1)

    fast = "cuda_graph" if device == "cuda" else "static"
    graph = executors.get(fast)()
    graph.reuses = False
    return {
        "as shipped": (1, run(AsShipped())),
        "reference": (1, run("reference")),
        "cached": (repeats, run("cached")),
        f"{fast}, nothing reused": (repeats, run(graph)),
        fast: (repeats, run(fast)),
    }


def capture_rows(
    name: str, system: lm.System, samples: list[str], suite: Suite, tokens: int
) -> list[dict[str, Any]]:
    """Graphs captured in two runs, in a warm-up and in a run after it, and what each took."""
    fast, found = "cuda_graph" if suite.device == "cuda" else "static", list[dict[str, Any]]()
    batch = len(samples)
    backbones = list({id(b): b for b in system.agent_backbones.values()}.values())

    def graphs() -> int:
        return sum(kept_memory(backbone).graphs for backbone in backbones)

    def measured(what: str, way: Callable[[], Any]) -> None:
        before = graphs()
        seconds = suite.seconds(way)
        way_and_count = f"{what}: {graphs() - before} captures"
        found.append(_row(name, batch, "graphs", way_and_count, round(seconds, 3), None))

    def run() -> Any:
        return system.run(samples, executor=fast, max_new_tokens=tokens)

    measured("run 1", run)
    measured("run 2", run)
    for backbone in backbones:
        backbone.workspace.clear()
    limits = {"batch_size": batch, "max_length": 512, "max_new_tokens": tokens}
    measured("warm-up", lambda: system.warm_up(**limits, executor=fast))
    measured("run after it", run)
    return found


def rows_of(name: str, suite: Suite, tiny: bool, tokens: int) -> list[dict[str, Any]]:
    """All ways of one system."""
    system, batch = built(name, tiny, suite.device)
    samples = [sample(120 if not tiny else 20)] * batch
    captures = capture_rows(name, system, samples, suite, tokens)
    found = suite.medians(name, ways_of(system, samples, suite.device, suite.repeats))
    machine = "h200" if suite.device == "cuda" else "cpu"
    floor = system.explain(samples, machine, max_new_tokens=1).seconds or 0.0
    base = found.get("reference", (None, 0))[0]
    rows = [
        {
            "system": name,
            "batch": batch,
            "phase": "latent",
            "way": way,
            "seconds": seconds,
            "repeats": count,
            "ratio": round(base / seconds, 2) if base else None,
        }
        for way, (seconds, count) in found.items()
    ]
    rows.append(_row(name, batch, "latent", f"roofline's floor ({machine})", round(floor, 4), base))
    twin = system.text_twin()
    fast = list(found)[-1]
    own = suite.medians(
        name,
        {
            "latents, then text": (
                suite.repeats,
                lambda: system.run(samples, executor=fast, max_new_tokens=tokens),
            ),
            f"text twin, {tokens} tokens a turn": (
                suite.repeats,
                lambda: twin.run(samples, executor=fast, max_new_tokens=tokens),
            ),
        },
    )
    text_messages = next((seconds for way, (seconds, _) in own.items() if "twin" in way), None)
    for way, (seconds, count) in own.items():
        rows.append(_row(name, batch, "whole", way, seconds, text_messages) | {"repeats": count})
    return [*captures, *rows]


def _row(
    name: str, batch: int, phase: str, way: str, seconds: float, base: float | None
) -> dict[str, Any]:
    ratio = round(base / seconds, 2) if base and seconds else None
    row = {"system": name, "batch": batch, "phase": phase, "way": way, "seconds": seconds}
    return row | {"repeats": 0, "ratio": ratio}


def main() -> None:
    """Run the suite."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--systems", default="sequential_light,sequential_scaled,mixture")
    parser.add_argument("--tiny", action="store_true", help="small shapes, on a CPU too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=256, help="written in the whole runs")
    parser.add_argument("--limit", type=float, default=460, help="seconds for all of it")
    given = parser.parse_args()
    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not given.tiny:
        parser.error("the true shapes need a CUDA device; --tiny runs small ones")
    suite = Suite(given.limit, given.repeats, device)
    names = ["sequential_light", "mixture"] if given.tiny else given.systems.split(",")
    rows: list[dict[str, Any]] = []
    for name in names:
        rows += rows_of(name, suite, given.tiny, 8 if given.tiny else given.tokens)
        if device == "cuda":
            torch.cuda.empty_cache()
    machine = hardware() | {"torch": torch.__version__}
    if given.json:
        found = {"hardware": machine, "rows": rows, "left_out": suite.left_out}
        print(json.dumps(found, indent=2))
        return
    print(machine)
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:>9.2f}×"
        print(
            f"{row['system']:<20}{row['phase']:<8}{row['way']:<34}{row['seconds']:>10.3f} s{ratio}"
        )
    print("\n".join(f"no time for {what}" for what in suite.left_out))


if __name__ == "__main__":
    main()
