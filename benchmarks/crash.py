"""Kill a training ten times at random moments, resume it, and compare the links.

    python benchmarks/crash.py [--tiny] [--json]

Each trial starts one training, kills it with SIGKILL at a random moment, resumes it until it ends,
and compares every weight with those of a training that nobody killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

TRAIN = """
import sys, latentmas as lm
from transformers.utils import logging
logging.disable_progress_bar()
rows = [{"question": f"{i} + {i}?", "answer": "x" * (i % 5 + 1)} for i in range(16)]
tiny = lm.Backbone(sys.argv[1])
links = dict.fromkeys(("link", "inner"), "recursive")
graph = lm.templates.distillation(
    expert=tiny, learner=tiny, rounds=2, latent_steps=3, **links
)
config = lm.OuterConfig(
    sys.argv[2], max_steps=24, use_cpu=True, per_device_train_batch_size=4, logging_steps=1,
    save_strategy="steps", save_steps=1, save_total_limit=3, probe_stability=False,
)
trainer = lm.OuterTrainer(graph.compile().load(), config, train_dataset=rows)
print("ready", flush=True)
trainer.train(resume_from_checkpoint=True if "resume" in sys.argv else None)
trainer.save_model()
"""


def train(model: Path, folder: Path, *, resume: bool, kill_after: float | None) -> int:
    """Run the training in a process; seconds of training until it is killed, None for never."""
    command = [sys.executable, "-c", TRAIN, str(model), str(folder), *(["resume"] * resume)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        if kill_after is not None:
            process.stdout.readline()
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
        process.stdout.read()
    return process.returncode


def trial(
    number: int, model: Path, folder: Path, whole: dict[str, torch.Tensor]
) -> dict[str, object]:
    """One training, killed once, resumed to its end."""
    moment = random.Random(number).uniform(0.1, 1.4)
    code = train(model, folder, resume=False, kill_after=moment)
    steps = [int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*")]
    if code != 0 and steps:
        code = train(model, folder, resume=True, kill_after=None)
    if code != 0:  # killed before the first checkpoint was whole
        code = train(model, folder, resume=False, kill_after=None)
    found = load_file(folder / "links.safetensors")
    same = code == 0 and all(torch.equal(found[name], whole[name]) for name in whole)
    reached = max(steps, default=0)
    return {"trial": number, "killed_after_s": round(moment, 2), "at_step": reached, "equal": same}


def main() -> int:
    """Run the trials; 1 when one of them ends with other links."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="two trials")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    from latentmas.testing import tiny_backbone

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        tiny_backbone("llama", 16, folder=root / "model")
        train(root / "model", root / "whole", resume=False, kill_after=None)
        whole = load_file(root / "whole" / "links.safetensors")
        count = 2 if given.tiny else 10
        rows = [trial(n, root / "model", root / f"trial{n}", whole) for n in range(count)]
    if given.json:
        print(json.dumps({"rows": rows}, indent=2))
    else:
        for row in rows:
            print("   ".join(f"{name} {value}" for name, value in row.items()))
    return 0 if all(row["equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
