"""The runner of evaluations on many rows: memory, order, and one line for each row.

    python benchmarks/evaluation.py [--rows 10000] [--output FILE] [--json]

A small random team answers rows of unequal lengths. The program prints the memory of the process
(RSS, MiB) after each tenth of the rows, rows a second, and what the results file holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from transformers.utils import logging

import latentmas as lm
from latentmas.environment import hardware
from latentmas.evaluation import evaluate, read_records
from latentmas.runtime import SampleEnd
from latentmas.testing import tiny_backbone


def team() -> lm.Graph:
    """Two agents on one small model."""
    backbone = tiny_backbone("llama", 32)
    graph = lm.Graph("pair", inputs=["question"], rounds=1, latent_steps=2)
    graph.add_agent("reader", backbone, prompt="{{ question }}")
    graph.add_agent("answerer", backbone, prompt="{{ reader }} {{ question }}", max_new_tokens=3)
    graph.connect("reader", "answerer")
    return graph.output("answerer")


class Memory:
    """Memory of the process after each tenth of the rows."""

    def __init__(self, rows: int) -> None:
        self.mebibytes: list[float] = []
        self._rows, self._done, self._process = rows, 0, psutil.Process()

    def __call__(self, event: object) -> None:
        """Note the memory when a tenth of the rows has ended."""
        if isinstance(event, SampleEnd):
            self._done += 1
            if self._done % max(1, self._rows // 10) == 0:
                self.mebibytes.append(round(self._process.memory_info().rss / 2**20, 1))


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--output", type=Path, help="file for the figures, as JSON")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    logging.disable_progress_bar()
    system = team().compile().load()
    rows = [{"question": f"{n} " * (1 + n % 7), "answer": str(n % 10)} for n in range(given.rows)]
    memory = Memory(given.rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        began, busy = time.perf_counter(), time.process_time()
        found = evaluate(system, rows, output=path, on_event=memory, batch_size=64)
        seconds, cpu = time.perf_counter() - began, time.process_time() - busy
        numbers = [record.row for record in read_records(path)]
        size = path.stat().st_size
    figures: dict[str, Any] = {
        "rows": found.rows,
        "in_order_one_line_each": numbers == list(range(given.rows)),
        "rss_mebibytes": memory.mebibytes,
        "growth_mebibytes_after_first_tenth": round(memory.mebibytes[-1] - memory.mebibytes[0], 1),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "rows_a_second": round(given.rows / seconds, 1),
        "file_mebibytes": round(size / 2**20, 1),
        "hardware": hardware(),
    }
    if given.output is not None:
        given.output.write_text(json.dumps(figures, indent=1) + "\n")
    if given.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name}: {value}")
    return 0 if figures["in_order_one_line_each"] else 1


if __name__ == "__main__":
    sys.exit(main())
