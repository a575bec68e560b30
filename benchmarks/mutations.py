"""Mutations made by hand in the core, each of which a test must notice.

    python benchmarks/mutations.py [--only WORD] [--json]

Each mutation is one line changed in a copy of the package; the tests named with it are run there.
The exit code is 1 when a mutation survives. `--tiny` runs the first only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Mutation(NamedTuple):
    """One change of the source, and the tests that must fail with it."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "generation/controllers.py",
        "text.rindex(string)",
        "text.index(string)",
        ("tests/test_calling.py", "-k", "stop"),
    ),
    Mutation(
        "training/memory/recompute.py",
        "            with beginnings_kept():",
        "            if True:",
        ("tests/test_training_speed.py", "-k", "anew"),
    ),
    Mutation(
        "training/monitoring/telemetry.py",
        "if not isinstance(content, Tensor):",
        "if False:",
        ("tests/test_training_exactness.py", "-k", "telemetry"),
    ),
    Mutation(
        "runtime/observing/taps.py",
        "if also is not None and isinstance(content, Tensor):",
        "if also is not None:",
        ("tests/test_combine.py", "tests/test_taps.py", "tests/test_relay_table.py"),
    ),
    Mutation(
        "runtime/combine.py",
        "(padded_NBKD != 0).any(dim=-1, keepdim=True).sum(dim=0)",
        "torch.full((1,), len(padded_NBKD))",
        ("tests/test_combine.py",),
    ),
    Mutation(
        "plan/steps.py",
        'return sum(rows) if self.how == "concat" else max(rows)',
        "return max(rows)",
        ("tests/test_combine.py", "tests/test_training_exactness.py", "-k", "combine or slot"),
    ),
    Mutation(
        "engine/reuse/prefix.py",
        "same_T &= (now_BT[:, :width] != MESSAGE).all(dim=0)",
        "same_T &= True",
        ("tests/test_executors.py",),
    ),
    Mutation(
        "engine/sessions/_base.py",
        "self.next_B = self.next_B + mask_BT.sum(dim=1)",
        "self.next_B = self.next_B + mask_BT.shape[1]",
        ("tests/test_runtime.py",),
    ),
    Mutation(
        "engine/rollout.py",
        "feed.roll(inner, first, latent_steps - 1)",
        "feed.roll(inner, first.detach(), latent_steps - 1)",
        ("tests/test_gradients.py",),
    ),
    Mutation(
        "compiler/prune.py",
        "live.update(step.reads)",
        "live.update(step.reads[:1])",
        ("tests/test_compiler_properties.py",),
    ),
    Mutation(
        "compiler/schedule.py",
        "round - edge.delay)",
        "round)",
        ("tests/test_compiler_properties.py",),
    ),
    Mutation(
        "generation/drawing.py",
        "outside_BK = p_BK.cumsum(dim=-1).sub_(p_BK) >= filters.top_p",
        "outside_BK = p_BK.cumsum(dim=-1) >= filters.top_p",
        ("tests/test_decoding.py", "tests/test_runtime.py"),
    ),
    Mutation(
        "engine/packing.py",
        "message_BKD.to(x_BTD.device, x_BTD.dtype)[rows_N, k_N]",
        "message_BKD.flip(1).to(x_BTD.device, x_BTD.dtype)[rows_N, k_N]",
        ("tests/test_fidelity.py", "-k", "sequential_light or sequential-light"),
    ),
    Mutation(
        "links/soft_token.py",
        "p_NV = (logits_NV / self.temperature).softmax(dim=-1)",
        "p_NV = logits_NV.softmax(dim=-1)",
        ("tests/test_soft_token.py",),
    ),
)
"""A line of the package → what it becomes, and the tests that must notice."""


def run(mutation: Mutation, copy: Path) -> dict[str, object]:
    """Apply a mutation in a copy, run its tests, and take it back.

    Raises:
        ValueError: the line is no longer in the file; the mutation must follow the code.
    """
    path = copy / "latentmas" / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.file} holds {mutation.old!r} {text.count(mutation.old)} times")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *mutation.tests], cwd=copy, env=environment, capture_output=True, text=True
    )
    path.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):  # no test was chosen, or pytest itself failed
        raise ValueError(f"{mutation.file}: {done.stdout[-300:]}{done.stderr[-300:]}")
    last = done.stdout.strip().splitlines()[-1]
    return {
        "file": mutation.file,
        "new": mutation.new,
        "killed": bool(done.returncode),
        "run": last,
    }


def main() -> int:
    """Run all mutations, print a line for each, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="run mutations of files whose name holds this")
    parser.add_argument("--tiny", action="store_true", help="run the first mutation only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    chosen = [one for one in MUTATIONS if given.only in one.file][: 1 if given.tiny else None]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("latentmas", "tests", "benchmarks", "docs", "examples"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for mutation in chosen:
            found.append(run(mutation, copy))
            if not given.json:
                outcome = "killed" if found[-1]["killed"] else "SURVIVED"
                print(
                    f"{outcome:<9} {mutation.file}: {mutation.new}  ({found[-1]['run']})",
                    flush=True,
                )
    killed = sum(bool(one["killed"]) for one in found)
    report = {"mutations": len(found), "killed": killed, "runs": found}
    print(json.dumps(report, indent=2) if given.json else f"{killed} of {len(found)} killed")
    return int(killed < len(found))


if __name__ == "__main__":
    sys.exit(main())
