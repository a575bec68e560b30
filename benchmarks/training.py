"""Training: equal gradients, memory against latent steps, time of cached against recomputed.

    python benchmarks/training.py [--link KIND] [--tiny] [--json]

Three tables: gradients of four modes against full recomputation (fp64, six families); bytes that
autograd keeps for one rollout's loss against the number of latent steps; and seconds of one forward
and backward pass. The modes: `recompute` runs the whole sequence again each step (executor
`reference`), `whole` carries the cache, `cached` also reads the prompt's fixed part without
gradients and keeps keys and values once (the default), `apart` keeps them anew for each latent
step, `rollout` computes activations again in the backward pass.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
from transformers.utils import logging

import latentmas as lm
from latentmas.engine import CachedSession
from latentmas.environment import hardware
from latentmas.testing import TINY_FAMILIES, tiny_backbone
from latentmas.training.losses.outer import OuterLoss
from latentmas.training.memory.saved_tensors import saved_bytes

MODES: dict[str, dict[str, Any]] = {
    "recompute": {"executor": "reference"},
    "whole": {"split": False},
    "cached": {},
    "apart": {"once": False},
    "rollout": {"checkpoint": True},
}
ROWS = [
    {"question": "What is 3 + 4?", "answer": "7"},
    {"question": "a longer question, of more words", "answer": "no idea"},
]


def team(family: str, width: int, layers: int, steps: int, rounds: int, kind: str) -> lm.Graph:
    """A pair of agents on one backbone; the prompt has a part before its slot, and one after."""
    backbone = tiny_backbone(family, width, layers=layers, initializer_range=0.05)
    graph = lm.Graph("pair", inputs=["question"], rounds=rounds, latent_steps=steps)
    before, after = "Read with care. " * 8, " Now think it over." * 2
    first = before + "{% if back %}{{ back }}{% endif %}{{ question }}" + after
    second = before + "{{ one }} {{ question }}" + after
    graph.add_agent("one", backbone, prompt=first, inner=kind)
    graph.add_agent("two", backbone, prompt=second, inner=kind)
    graph.connect("one", "two", norm="none", link=kind)
    graph.feedback("two", "one.back", norm="none", link=kind)
    return graph.output("two")


def loss_of(system: lm.System, mode: str) -> OuterLoss:
    """The loss module of a mode."""
    options = dict(MODES[mode])
    CachedSession.splits, once = options.pop("split", True), options.pop("once", True)
    loss = OuterLoss(system, system.plan, **options)
    loss.deduplicate = once
    return loss


def gradients(system: lm.System, mode: str) -> torch.Tensor:
    """All gradients in one vector."""
    system.zero_grad(set_to_none=True)
    loss_of(system, mode)(ROWS)["loss"].backward()
    found = [p.grad for p in system.parameters() if p.grad is not None]
    return torch.cat([grad.flatten() for grad in found])


def equality(tiny: bool, kind: str) -> list[dict[str, Any]]:
    """Largest difference of each mode's gradients from recomputation, over their largest value."""
    rows = []
    for family in TINY_FAMILIES[:2] if tiny else TINY_FAMILIES:
        graph = team(family, 32, 4 if family == "qwen3_5_text" else 2, 4, 2, kind)
        system = graph.compile().load(dtype="float64").double()
        system.requires_grad_(True)
        plain = gradients(system, "recompute")
        row: dict[str, Any] = {"table": "gradients", "family": family}
        for mode in ("whole", "cached", "apart", "rollout"):
            distance = (gradients(system, mode) - plain).abs().max() / plain.abs().max()
            row[mode] = float(distance)
        rows.append(row)
    return rows


def memory_and_time(tiny: bool, kind: str) -> list[dict[str, Any]]:
    """MiB kept and seconds taken by each mode, for growing latent steps."""
    rows = []
    width, layers, repeats = (64, 2, 1) if tiny else (192, 4, 2)
    for steps in (4, 8) if tiny else (8, 16, 32, 64):
        graph = team("llama", width, layers, steps, 1, kind)
        system = graph.replace(rounds=2).compile().load()
        system.requires_grad_(True)
        row: dict[str, Any] = {"table": "memory", "latent_steps": steps}
        seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
        for turn in range(repeats):
            for mode in MODES:
                if mode == "recompute" and steps > 32:
                    continue
                loss = loss_of(system, mode)
                if turn == 0:
                    with saved_bytes() as saved:
                        loss(ROWS)
                    row[f"MiB_{mode}"] = round(saved[0] / 2**20, 1)
                began = time.perf_counter()
                loss(ROWS)["loss"].backward()
                seconds[mode].append(time.perf_counter() - began)
        medians = {mode: statistics.median(taken) for mode, taken in seconds.items() if taken}
        row |= {f"s_{mode}": round(value, 3) for mode, value in medians.items()}
        if "recompute" in medians:
            row["ratio_cached"] = round(medians["recompute"] / medians["cached"], 1)
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows as tables."""
    header: list[str] = []
    for row in rows:
        names = [name for name in row if name != "table"]
        if names[:1] != header[:1]:
            header = names
            print("\n" + row["table"] + "\n" + "".join(f"{name:>16}" for name in header))
        cells = [row.get(name, "") for name in header]
        print(
            "".join(
                f"{c:>16.2e}" if isinstance(c, float) and c < 1e-2 else f"{c!s:>16}" for c in cells
            )
        )


def _shown(cell: Any) -> str:
    return f"{cell:.2e}" if isinstance(cell, float) and cell < 1e-2 else str(cell)


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small shapes, to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--link", default="recursive", metavar="KIND", help="kind of all links")
    given = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(1 if given.tiny else torch.get_num_threads())
    rows = equality(given.tiny, given.link) + memory_and_time(given.tiny, given.link)
    machine = hardware()
    if given.json:
        print(json.dumps({"hardware": machine, "link": given.link, "rows": rows}, indent=2))
        return
    print(machine, given.link)
    show(rows)


if __name__ == "__main__":
    main()
