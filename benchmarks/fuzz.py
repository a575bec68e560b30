"""Damage sound files by the thousand and give them to their loaders.

    python benchmarks/fuzz.py [--cases 10000] [--only WORD] [--seed 0] [--tiny] [--json]

For each loader: how many damaged files it took, how many it refused and with which error, and the
longest time of the processor. Exit code 1 when a loader raises what is no LatentMASError, or takes
more than 10 s of it; the first such files are kept in `fuzz-out/`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from transformers.utils import logging  # noqa: E402

from tests.hostile.fuzzing import TARGETS, Fuzz, Target  # noqa: E402

MOST_SECONDS = 10.0
KEEP = 5
"""Files of one loader that are kept."""


class Tally:
    """What came of one loader's cases."""

    def __init__(self, target: Target, out: Path) -> None:
        self.target, self.out = target, out
        self.counts: Counter[str] = Counter()
        self.longest = 0.0

    def add(self, fuzz: Fuzz, content: bytes) -> None:
        """Run a case and count it."""
        began = time.process_time()
        try:
            outcome = fuzz.case(self.target, content)
        except Exception as error:
            outcome = f"unhandled {type(error).__name__}"
            self._keep(content, traceback.format_exc())
        seconds = time.process_time() - began
        self.longest = max(self.longest, seconds)
        if seconds > MOST_SECONDS:
            outcome = "unhandled slowness"
            self._keep(content, f"{seconds:.1f} s")
        self.counts[outcome] += 1

    def _keep(self, content: bytes, why: str) -> None:
        number = sum(n for name, n in self.counts.items() if name.startswith("unhandled"))
        if number < KEEP:
            self.out.mkdir(exist_ok=True)
            name = "".join(c if c.isalnum() else "-" for c in self.target.name)
            (self.out / f"{name}-{number}.bin").write_bytes(content)
            (self.out / f"{name}-{number}.txt").write_text(why)

    @property
    def unhandled(self) -> int:
        """Cases that a loader did not take and did not refuse."""
        return sum(n for name, n in self.counts.items() if name.startswith("unhandled"))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        counts = dict(sorted(self.counts.items()))
        return {
            "loader": self.target.name,
            "cases": self.counts.total(),
            "accepted": counts.pop("accepted", 0),
            "refused": {k: n for k, n in counts.items() if not k.startswith("unhandled")},
            "unhandled": {k: n for k, n in counts.items() if k.startswith("unhandled")},
            "longest_seconds": round(self.longest, 3),
        }

    def __str__(self) -> str:
        """One line."""
        told = self.to_dict()
        refused = ", ".join(f"{name} {n:,}" for name, n in told["refused"].items()) or "none"
        bad = ", ".join(f"{name} {n:,}" for name, n in told["unhandled"].items()) or "0"
        return (
            f"{told['loader']:<32} {told['cases']:>7,} cases  {told['accepted']:>6,} taken  "
            f"unhandled {bad}  longest {self.longest * 1000:.0f} ms  refused: {refused}"
        )


def run(fuzz: Fuzz, target: Target, cases: int, first: int, out: Path) -> Tally:
    """Run at least so many cases of one loader."""
    tally = Tally(target, out)
    strategy = target.damage(target.seeds(fuzz))
    while tally.counts.total() < cases:

        @seed(first + tally.counts.total())
        @settings(
            max_examples=cases - tally.counts.total(),
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(content=strategy)
        def one(content: bytes) -> None:
            tally.add(fuzz, content)

        one()
    return tally


def main() -> int:
    """Print a line for each loader; 1 when one of them raises what it should not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000, help="of each loader")
    parser.add_argument("--only", default="", help="loaders whose name holds this")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--tiny", action="store_true", help="50 cases of each loader")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given_ = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    tallies = []
    with tempfile.TemporaryDirectory() as scratch:
        fuzz = Fuzz(Path(scratch) / "fuzz")
        for target in TARGETS:
            if given_.only in target.name:
                cases = 50 if given_.tiny else given_.cases
                tallies.append(run(fuzz, target, cases, given_.seed, Path("fuzz-out").resolve()))
                if not given_.json:
                    print(tallies[-1], flush=True)
    bad = sum(tally.unhandled for tally in tallies)
    total = sum(tally.counts.total() for tally in tallies)
    if given_.json:
        rows = [tally.to_dict() for tally in tallies]
        print(json.dumps({"cases": total, "unhandled": bad, "rows": rows}, indent=2))
    else:
        print(f"\n{total:,} cases over {len(tallies)} loaders, {bad} unhandled")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
