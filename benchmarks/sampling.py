"""Choosing tokens: fast sampling against a sort of everything, on scores of several kinds.

    python benchmarks/sampling.py [--rows 32] [--vocabulary 151936] [--threads 1]
        [--backbone NAME] [--tiny] [--json]

`plain` sorts all scores with their ids and goes through whole histories for the repetition penalty,
as version 0.1 did, but for a stable sort; the tests compare draws with it. Both take turns in one
process. Times are medians in CPU milliseconds of a step for all rows. `sorted` is the share of rows
that the likeliest 512 tokens do not decide. Scores are normal with the given standard deviation,
or, with --backbone, those of a language model after each word of a text.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import latentmas as lm
from latentmas.environment import hardware, versions
from latentmas.generation import Sampling, drawing, pick
from latentmas.generation.penalty import WrittenTokens

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.plain_sampling import plain_penalty, plain_pick  # noqa: E402

FILTERS: dict[str, dict[str, Any]] = {
    "top_p=0.95": {"top_p": 0.95},
    "temperature=0.6, top_p=0.95": {"temperature": 0.6, "top_p": 0.95},
    "temperature=0.6, top_p=0.95, top_k=20": {"temperature": 0.6, "top_p": 0.95, "top_k": 20},
    "min_p=0.05": {"min_p": 0.05},
    "no filter": {},
}
SPREADS = (1.0, 2.0, 4.0)
LENGTHS = (10, 100, 1000)
PENALTY = 1.3


def cpu_ms(ways: dict[str, Callable[[int], Any]], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each way; they take turns, after one round that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(repeats + 1):
        for name, way in ways.items():
            began = time.process_time()
            way(i)
            taken[name].append(1e3 * (time.process_time() - began))
    return {name: round(statistics.median(times[1:]), 3) for name, times in taken.items()}


def sampling_row(scores: str, logits: Tensor, name: str, repeats: int) -> dict[str, Any]:
    """One kind of scores, one set of filters."""
    sampling = Sampling(do_sample=True, **FILTERS[name])
    uniform = torch.rand(repeats + 1, len(logits), generator=torch.Generator().manual_seed(1))
    draws: dict[str, list[list[int]]] = {"plain": [], "fast": []}
    medians = cpu_ms(
        {
            "plain": lambda i: draws["plain"].append(
                plain_pick(logits, sampling, uniform[i]).tolist()
            ),
            "fast": lambda i: draws["fast"].append(pick(logits, sampling, uniform[i]).tolist()),
        },
        repeats,
    )
    return {
        "scores": scores,
        "filters": name,
        "vocabulary": logits.shape[-1],
        "plain_ms": medians["plain"],
        "fast_ms": medians["fast"],
        "ratio": round(medians["plain"] / medians["fast"], 1),
        "sorted": sorted_share(logits, sampling, uniform),
        "equal_draws": draws["plain"] == draws["fast"],
    }


def sorted_share(logits: Tensor, sampling: Sampling, uniform: Tensor) -> float:
    """Share of the draws that sorted a row."""
    counted, draw_sorted = [0], drawing._draw_sorted

    def counting(scores_BV: Tensor, *given: Any) -> Tensor:
        counted[0] += len(scores_BV)
        return draw_sorted(scores_BV, *given)

    drawing._draw_sorted = counting
    try:
        for own in uniform:
            pick(logits, sampling, own)
    finally:
        drawing._draw_sorted = draw_sorted
    return round(counted[0] / uniform.numel(), 3)


def penalty_row(rows: int, vocabulary: int, length: int, repeats: int) -> dict[str, Any]:
    """One length of what has been written; all tokens differ, which is the dearest case."""
    logits = torch.randn(rows, vocabulary)
    histories = [torch.randperm(vocabulary)[: length + repeats + 1].tolist() for _ in range(rows)]
    written = WrittenTokens()
    written.add_rows(rows)
    written.write([(i, ids[: length - 1]) for i, ids in enumerate(histories)])

    def fast(step: int) -> None:
        written.write([(i, [ids[length - 1 + step]]) for i, ids in enumerate(histories)])
        written.penalise(logits, [PENALTY] * len(logits))

    medians = cpu_ms(
        {
            "plain": lambda i: plain_penalty(
                logits, [ids[: length + i] for ids in histories], PENALTY
            ),
            "fast": fast,
        },
        repeats,
    )
    return {
        "tokens": length,
        "plain_ms": medians["plain"],
        "fast_ms": medians["fast"],
        "ratio": round(medians["plain"] / medians["fast"], 1),
    }


def model_scores(name: str, rows: int) -> Tensor:
    """What a language model expects after each of some words."""
    graph = lm.Graph("one", inputs=["question"], rounds=1, latent_steps=1)
    graph.add_agent("one", lm.Backbone(name), prompt="{{ question }}")
    loaded = graph.output("one").compile().load().backbone_of("one")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    ids = torch.tensor([loaded.tokenizer(text)["input_ids"][: 8 * rows]])
    with torch.no_grad():
        return loaded.model(ids).logits[0, 7::8].float()


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All rows."""
    torch.manual_seed(0)
    shape = (given.rows, given.vocabulary)
    kinds = {f"normal, deviation {spread:g}": torch.randn(shape) * spread for spread in SPREADS}
    if given.backbone:
        kinds[given.backbone] = model_scores(given.backbone, given.rows)
    return {
        "hardware": hardware(),
        "versions": versions(),
        "rows": given.rows,
        "sampling": [
            sampling_row(kind, logits, name, given.repeats)
            for kind, logits in kinds.items()
            for name in FILTERS
        ],
        "penalty": [penalty_row(*shape, length, given.repeats) for length in LENGTHS],
    }


def main() -> int:
    """Measure and print; 1 where draws differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=32, help="rows of a batch")
    parser.add_argument("--vocabulary", type=int, default=151_936, help="number of tokens")
    parser.add_argument("--backbone", help="language model whose scores are drawn from, too")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    if given.tiny:
        given.rows, given.vocabulary = 4, 8192
    torch.set_num_threads(given.threads)
    found = measure(given)
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        for table in ("sampling", "penalty"):
            print("  ".join(found[table][0]))
            for row in found[table]:
                print("  ".join(str(value) for value in row.values()))
    return 0 if all(row["equal_draws"] for row in found["sampling"]) else 1


if __name__ == "__main__":
    sys.exit(main())
