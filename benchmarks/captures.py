"""How many CUDA graphs are captured for answers of unequal length, counted without a GPU.

    python benchmarks/captures.py [--samples 96] [--tiny] [--json]

Graphs are emulated: steps run on the CPU, and what would be captured is counted (`tests/emulated`).
Answers have 4 to 100 tokens; samples join when half of a batch has ended. For each batch size: two
runs of a team that has captured nothing before, and two after `System.warm_up`. Counts do not
depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import logging

import latentmas as lm
from latentmas.environment import versions
from latentmas.generation import GenerationBatch
from latentmas.testing import tiny_backbone

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.emulated import Cuda, Emulated

LIMIT, LONGEST_PROMPT = 100, 200


def built() -> lm.System:
    """A team of two agents on one backbone."""
    tiny = tiny_backbone("llama", 32, layers=2)
    links: dict[str, Any] = {"link": "recursive", "inner": "recursive"}
    graph = lm.templates.distillation(expert=tiny, learner=tiny, latent_steps=4, **links)
    return graph.compile().load()


def end_unequally(patch: pytest.MonkeyPatch) -> None:
    """Let each answer end after a number of tokens that its random stream decides."""
    plain = GenerationBatch._settle

    def settle(pool: Any, chosen: dict[int, int]) -> None:
        end, rows = min(pool._backbone.stop_ids), pool._rows
        lengths = {i: 4 + rows[i].stream.initial_seed() % (LIMIT - 3) for i in chosen}
        plain(pool, {i: end if len(rows[i].ids) >= lengths[i] else 9 for i in chosen})

    patch.setattr(GenerationBatch, "_settle", settle)


def counted(cuda: Cuda, system: lm.System, samples: list[str], batch: int) -> list[int]:
    """Captures in each of two runs."""
    found = []
    for _ in range(2):
        before = cuda.captures
        system.run(
            samples,
            executor=Emulated(),
            max_new_tokens=LIMIT,
            batch_size=batch,
            refill_threshold=0.5,
        )
        found.append(cuda.captures - before)
    return found


def row_of(cuda: Cuda, batch: int, count: int) -> dict[str, Any]:
    """Counts for one batch size."""
    samples = ["x" * (n % 13) for n in range(count)]
    first, second = counted(cuda, built(), samples, batch)
    warm = built()
    done = warm.warm_up(
        batch_size=batch, max_length=LONGEST_PROMPT, max_new_tokens=LIMIT, executor=Emulated()
    )
    return {
        "batch": batch,
        "samples": count,
        "first run": first,
        "second run": second,
        "warm-up": done.captures,
        "first run after it": counted(cuda, warm, samples, batch)[0],
        "bytes of buffers": done.nbytes,
    }


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--tiny", action="store_true", help="few samples")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    logging.disable_progress_bar()
    with pytest.MonkeyPatch.context() as patch:
        cuda = Cuda(patch)
        end_unequally(patch)
        batches, count = ((4,), 12) if given.tiny else ((8, 16, 32), given.samples)
        rows = [row_of(cuda, batch, count) for batch in batches]
    if given.json:
        print(json.dumps({"versions": versions(), "rows": rows}, indent=1))
        return
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
