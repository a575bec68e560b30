"""One latent rollout: the published loop, the cache, and a prefix that was read before.

    python benchmarks/rollout.py [--families qwen3,llama] [--threads 2] [--link KIND] [--tiny]
        [--json]

The published loop runs the whole sequence again at each latent step (executor `reference`, model
resident). `cached` computes each position once; `reused` also takes 90 % of the prompt from an
earlier turn, and `static` keeps its states in buffers of fixed size. `openvino` and
`openvino_reused` are the same with steps in OpenVINO, where the package is installed and the family
can be converted. `products` is the floor: the matrix products of a cached rollout alone, without
attention, norms, rotations and Python.
All in one process, interleaved; medians, and ratios of them. Differences are those of
the first four latent steps: random models multiply rounding errors with each step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from transformers.utils import logging

import latentmas as lm
from latentmas.backbones import openvino_step
from latentmas.engine import Packed, Prefix, executors
from latentmas.environment import hardware
from latentmas.testing import TINY_FAMILIES, tiny_backbone


def measure(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each way; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def products(loaded: Any, rows: int, prompt: int, steps: int) -> None:
    """Every linear layer of the decoder on a prompt, then on the rows of each later step."""
    decoder = loaded.family.decoder(loaded.model)
    layers = [module for module in decoder.modules() if isinstance(module, torch.nn.Linear)]
    inputs = {
        (count, layer.in_features): torch.ones(count, layer.in_features)
        for layer in layers
        for count in (rows * prompt, rows)
    }
    with torch.no_grad():
        for count in [rows * prompt] + [rows] * (steps - 1):
            for layer in layers:
                layer(inputs[count, layer.in_features])


def row_of(family: str, shape: dict[str, int], repeats: int, kind: str) -> dict[str, Any]:
    """One family's medians and ratios."""
    backbone = tiny_backbone(family, shape["hidden"], layers=shape["layers"])
    graph = lm.Graph("one", inputs=["question"], rounds=1, latent_steps=shape["steps"])
    graph.add_agent("one", backbone, prompt="{{ question }}", inner=kind)
    graph.add_agent("two", backbone, prompt="{{ one }}{{ question }}")
    graph.connect("one", "two", link=kind)
    system = graph.output("two").compile().load()
    loaded, inner = system.backbone_of("one"), system.link("inner.one")
    ids = torch.randint(4, 250, (shape["batch"], shape["prompt"]))
    lengths = (shape["prompt"],) * shape["batch"]
    prompt = Packed(loaded.embed(ids), torch.ones_like(ids), lengths, 0, ids)
    prefix = Prefix(ids[:, : int(0.9 * shape["prompt"])])
    steps = shape["steps"]

    def roll(executor: str, given: Packed) -> Any:
        with torch.no_grad():
            return executors.get(executor)().rollout(loaded, inner, given, steps)

    reused = prompt._replace(prefix=prefix)
    ways = {
        "reference": lambda: roll("reference", prompt),
        "cached": lambda: roll("cached", prompt),
        "reused": lambda: roll("cached", reused),
        "static": lambda: roll("static", prompt),
    }
    if find_spec("openvino") and not isinstance(openvino_step(loaded), str):
        ways["openvino"] = lambda: roll("openvino", prompt)
        ways["openvino_reused"] = lambda: roll("openvino", reused)
    found = {name: [way() for _ in range(2)][1] for name, way in ways.items()}
    plain = found.pop("reference")
    error = max(float((plain - other)[:, :4].abs().max()) for other in found.values())
    ways["products"] = lambda: products(loaded, shape["batch"], shape["prompt"], steps)
    medians = measure(ways, repeats)
    return {
        "family": family,
        **{f"s_{name}": round(value, 4) for name, value in medians.items()},
        **{
            f"ratio_{name}": round(medians["reference"] / value, 1)
            for name, value in medians.items()
            if name != "reference"
        },
        "largest_difference": float(f"{error:.1e}"),
    }


def main() -> None:
    """Run all families and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", default=",".join(TINY_FAMILIES))
    parser.add_argument("--tiny", action="store_true", help="small shapes, to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--link", default="recursive", metavar="KIND", help="kind of all links")
    parser.add_argument("--threads", type=int, help="of torch; its own choice if not given")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    shape = {"hidden": 512, "layers": 8, "prompt": 256, "steps": 32, "batch": 4}
    if given.tiny:
        shape = {"hidden": 64, "layers": 2, "prompt": 48, "steps": 4, "batch": 2}
    families = given.families.split(",")
    if unknown := set(families) - set(TINY_FAMILIES):
        parser.error(f"no family {', '.join(unknown)}; choose among {', '.join(TINY_FAMILIES)}")
    rows = [row_of(family, shape, given.repeats, given.link) for family in families]
    machine = hardware()
    if given.json:
        print(
            json.dumps(
                {"hardware": machine, "shape": shape, "link": given.link, "rows": rows}, indent=2
            )
        )
        return
    print(machine, shape, given.link)
    names = list(dict.fromkeys(name for row in rows for name in row))
    print("".join(f"{name:>23}" for name in names))
    for row in rows:
        print("".join(f"{row.get(name, '-')!s:>23}" for name in names))


if __name__ == "__main__":
    main()
