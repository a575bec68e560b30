"""The topologies of the gallery, timed on one machine: what docs/gallery.md shows.

    python benchmarks/gallery.py [--tiny] [--json]

The graphs are those that the page's own code makes. 16 questions at once, 16 latent steps, 16
tokens, models of width 256 with 4 layers; interleaved, medians of five.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

import latentmas as lm
from latentmas.testing import tiny_backbone

PAGE = Path(__file__).parent.parent / "docs" / "gallery.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def graphs() -> list[lm.Graph]:
    """What the page's blocks show, but for its last block, which counts."""
    scope: dict[str, Any] = {"__name__": "gallery"}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in BLOCK.findall(PAGE.read_text(encoding="utf-8"))[:-1]:
            exec(compile(block, str(PAGE), "exec"), scope)
    return [lm.Graph.from_spec(plan.graph) for plan in scope["gallery"]]


def measure(*, tiny: bool) -> list[dict[str, Any]]:
    """One row a topology."""
    width, layers, rows, steps, repeats = (32, 2, 2, 2, 1) if tiny else (256, 4, 16, 16, 5)
    found = graphs()  # the page makes models of its own first; the larger ones replace them
    for family, name in (("qwen3", "small"), ("llama", "wide")):
        tiny_backbone(family, width, layers=layers, folder=f"models/{name}")
    systems = {g.spec().name: g.replace(latent_steps=steps).compile().load() for g in found}
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    questions = ["What is 3 + 4, and why?"] * rows
    for number in range(repeats + 1):
        for name, system in systems.items():
            spent = system.run(questions, max_new_tokens=steps).seconds
            if number:  # the first run warms up
                seconds[name].append(spent)
    return [{"topology": n, "seconds": statistics.median(all_)} for n, all_ in seconds.items()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = measure(tiny=options.tiny)
        os.chdir("/")
    if options.json:
        machine = {"platform": platform.platform(), "threads": torch.get_num_threads()}
        print(json.dumps({"machine": machine, "rows": found}, indent=2))
        return
    for row in found:
        print(f"{row['topology']:<14}{row['seconds']:>8.2f} s")


if __name__ == "__main__":
    main()
