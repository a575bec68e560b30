"""Let two processes save teams into one folder while a third one loads from it.

    python benchmarks/save_together.py [--tiny] [--json]

Each writer saves a team of its own again and again; the reader loads whatever is there. Every save
and every load must succeed, and each loaded team must be one of the two, whole: graph, weights and
training records.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import latentmas as lm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.save_crash import same, teams

Count = dict[str, int]


def write(system: lm.System, folder: Path, cycles: int) -> Count:
    """Save a team again and again; the number of successes and failures."""
    return counted(lambda: bool(system.save_pretrained(folder)), cycles)


def read(systems: tuple[lm.System, lm.System], folder: Path, cycles: int) -> Count:
    """Load again and again; a team that is neither of the two is a failure."""

    def load() -> bool:
        found = lm.System.from_pretrained(folder, reuse=systems[0])
        return any(same(found, system) for system in systems)

    return counted(load, cycles)


def counted(work: Callable[[], bool], cycles: int) -> Count:
    """How often `work` returned true and how often it did not, or raised."""
    good = 0
    for _ in range(cycles):
        try:
            good += work()
        except Exception:
            traceback.print_exc()
    return {"fine": good, "failed": cycles - good}


def together(works: dict[str, Callable[[], Count]]) -> dict[str, Count]:
    """Run each work in a forked process of its own, all at once."""
    fork: Any = multiprocessing.get_context("fork")
    queue = fork.SimpleQueue()

    def run(name: str, work: Callable[[], Count]) -> None:
        queue.put((name, work()))

    processes = [fork.Process(target=run, args=item) for item in works.items()]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return dict(queue.get() for _ in works)


def main() -> int:
    """Run them; 1 when a save or a load fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="20 cycles instead of 200")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    cycles = 20 if given.tiny else 200
    torch.set_num_threads(1)
    systems = teams()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "team"
        systems[0].save_pretrained(folder)
        began = time.perf_counter()
        found = together(
            {
                "first writer": lambda: write(systems[0], folder, cycles),
                "second writer": lambda: write(systems[1], folder, cycles),
                "reader": lambda: read(systems, folder, cycles),
            }
        )
        seconds = time.perf_counter() - began
        left = sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
    if given.json:
        rows = [{"who": who, **counts} for who, counts in sorted(found.items())]
        print(json.dumps({"rows": rows, "left": left, "seconds": round(seconds, 1)}, indent=2))
    else:
        print(f"{cycles} cycles each in {seconds:.1f} s; left over: {left or 'nothing'}")
        for who, counts in sorted(found.items()):
            print(f"{who:<14} {counts['fine']:>4} fine {counts['failed']:>4} failed")
    return 1 if left or any(counts["failed"] for counts in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
