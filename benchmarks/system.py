"""A whole team: the published way, the cache, prompts' beginnings reused, branches batched.

    python benchmarks/system.py [--only branches] [--threads 2] [--link KIND] [--tiny] [--json]

`sequential`: planner, critic and solver of one shape, three rounds; the latent phase and one token.
`branches`: three experts on one backbone and a summarizer on another, with and without batching the
experts; `steps` is the part of it after the prompts (that of K steps less that of one).
`ragged`: many samples whose answers end at different times, with whole batches and with rows that
join where others have ended. All in one process, interleaved; medians, and ratios of them.
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
from latentmas.engine import executors
from latentmas.environment import hardware
from latentmas.testing import tiny_backbone

FILLER = "Consider each part of the matter with care before you go on. "


def sequential(shape: dict[str, int], kind: str) -> lm.System:
    """Three agents with long prompts whose slots stand near the end."""
    backbones = [
        tiny_backbone("llama", shape["hidden"], layers=shape["layers"], seed=seed)
        for seed in range(3)
    ]
    text = (FILLER * 10)[: shape["prompt"] - 60]
    graph = lm.Graph("chain", inputs=["question"], rounds=3, latent_steps=shape["steps"])
    slots = ["{% if word %}{{ word }}{% endif %}", "{{ word }}", "{{ word }}"]
    names = ("planner", "critic", "solver")
    for name, backbone, slot in zip(names, backbones, slots, strict=True):
        prompt = text + "{{ question }}" + slot
        graph.add_agent(name, backbone, prompt=prompt, inner=kind, max_new_tokens=1)
    graph.connect("planner", "critic.word", link=kind)
    graph.connect("critic", "solver.word", link=kind)
    graph.feedback("solver", "planner.word", link=kind)
    return graph.output("solver").compile().load()


def branches(shape: dict[str, int], kind: str) -> lm.System:
    """Three experts on one backbone; a small summarizer."""
    expert = tiny_backbone("llama", shape["hidden"], layers=shape["layers"])
    graph = lm.templates.mixture(
        experts={"math": expert, "code": expert, "science": expert},
        summarizer=tiny_backbone("llama", 32),
        rounds=1,
        latent_steps=shape["steps"],
        link=kind,
        inner=kind,
        max_new_tokens=1,
    )
    return graph.compile().load()


def alone(system: lm.System) -> lm.System:
    """The same team with one latent step: what its prompts cost."""
    return lm.System.load(system.plan.replace(latent_steps=1), reuse=system)


def ragged(shape: dict[str, int], repeats: int, kind: str) -> dict[str, Any]:
    """Answers of 2 to 4 × `steps` tokens, most of them short; batches of eight."""
    large = tiny_backbone("llama", shape["hidden"], layers=shape["layers"])
    team = lm.templates.distillation(
        expert=large, learner=large, latent_steps=shape["steps"], link=kind, inner=kind
    )
    system = team.compile().load()
    count, longest = 8 * shape["batch"], 4 * shape["steps"]
    samples = [f"What is {n} + {n}?" for n in range(count)]
    stop = list("abcdefghijkl")  # of random bytes, about one in twenty ends a row
    seconds: dict[float, list[float]] = {1.0: [], 0.5: [], 0.25: []}
    texts = []
    for _ in range(repeats):
        for share, taken in seconds.items():
            began = time.perf_counter()
            result = system.run(
                samples,
                do_sample=True,
                stop=stop,
                max_new_tokens=longest,
                batch_size=8,
                refill_threshold=share,
            )
            taken.append(time.perf_counter() - began)
            texts.append(result.texts)
    medians = {share: statistics.median(taken) for share, taken in seconds.items()}
    lengths = sorted(map(len, texts[0]))
    return {
        "system": f"{count} samples, answers of {lengths[0]} to {lengths[-1]} characters",
        **{f"s_refill_{share}": round(value, 3) for share, value in medians.items()},
        "ratio_refill_0.5": round(medians[1.0] / medians[0.5], 2),
        "ratio_refill_0.25": round(medians[1.0] / medians[0.25], 2),
        "equal_texts": all(own == texts[0] for own in texts),
    }


def compare(system: lm.System, ways: dict[str, Any], samples: list[str], repeats: int) -> Any:
    """Median seconds of each way, and the largest difference of their first latent steps."""
    cached = executors.get("cached")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    states: dict[str, Any] = {}
    system.run(samples, executor="cached")  # a first run touches each page of memory anew
    for _ in range(repeats):
        for name, (executor, reuses, groups) in ways.items():
            cached.reuses, cached.groups = reuses, groups
            began = time.perf_counter()
            result = system.run(samples, executor=executor, record=("states",))
            seconds[name].append(time.perf_counter() - began)
            states[name] = result.states["round1." + system.plan.graph.agents[0].name][:, :4]
    cached.reuses = cached.groups = True
    first, *others = states.values()
    error = max(float((first - other).abs().max()) for other in others)
    return {name: statistics.median(taken) for name, taken in seconds.items()}, error


def sequential_row(
    shape: dict[str, int], samples: list[str], repeats: int, kind: str
) -> dict[str, Any]:
    """The published way, the cache, and prompts' beginnings reused."""
    ways = {
        "reference": ("reference", False, False),
        "cached": ("cached", False, False),
        "reused": ("cached", True, False),
    }
    chain, error = compare(sequential(shape, kind), ways, samples, repeats)
    return {
        "system": "sequential, 3 rounds",
        **{f"s_{name}": round(value, 3) for name, value in chain.items()},
        "ratio_cached": round(chain["reference"] / chain["cached"], 1),
        "ratio_reused": round(chain["reference"] / chain["reused"], 1),
        "reuse_on_top": round(chain["cached"] / chain["reused"], 2),
        "largest_difference": float(f"{error:.1e}"),
    }


def branches_row(
    shape: dict[str, int], samples: list[str], repeats: int, kind: str
) -> dict[str, Any]:
    """Three experts one after another, and as one batch."""
    pair = {"apart": ("cached", False, False), "together": ("cached", False, True)}
    experts, often = branches(shape, kind), max(3, repeats)
    team, error = compare(experts, pair, samples, often)
    first, _ = compare(alone(experts), pair, samples, often)
    steps = {name: team[name] - first[name] for name in pair}
    return {
        "system": "three experts on one backbone",
        **{f"s_{name}": round(value, 3) for name, value in team.items()},
        "ratio_together": round(team["apart"] / team["together"], 2),
        "ratio_together_steps": round(steps["apart"] / steps["together"], 2),
        "largest_difference": float(f"{error:.1e}"),
    }


ROWS = {
    "sequential": sequential_row,
    "branches": branches_row,
    "ragged": lambda shape, samples, repeats, kind: ragged(shape, repeats, kind),
}


def main() -> None:
    """Run the comparisons; print each as it is done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=ROWS, help="one comparison")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--link", default="recursive", metavar="KIND", help="kind of all links")
    parser.add_argument("--threads", type=int, help="of torch; its own choice if not given")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    shape = {"hidden": 512, "layers": 8, "prompt": 256, "steps": 32, "batch": 4}
    if given.tiny:
        shape = {"hidden": 64, "layers": 2, "prompt": 128, "steps": 4, "batch": 2}
    samples = [f"What is {n} + {n}?" for n in range(shape["batch"])]
    machine = hardware()
    if not given.json:
        print(machine, shape, given.link)
    rows = []
    for name in [given.only] if given.only else list(ROWS):
        rows.append(ROWS[name](shape, samples, given.repeats, given.link))
        if not given.json:
            lines = (f"{key:>20}  {value}" for key, value in rows[-1].items())
            print("\n".join(lines) + "\n", flush=True)
    if given.json:
        print(
            json.dumps(
                {"hardware": machine, "shape": shape, "link": given.link, "rows": rows}, indent=2
            )
        )


if __name__ == "__main__":
    main()
