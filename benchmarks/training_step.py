"""CPU seconds of a training step on a real model: SmolLM2-135M-Instruct as reader and answerer.

    python benchmarks/training_step.py [--cases outer-2-kept,…] [--dtype float32] [--steps 6]
        [--output FILE] [--tiny]

The team is that of `latentmas demo --real`: B = 16 rows, K = 18 latent steps, one thread. Cases are
`outer-FACTS-kept` and `outer-FACTS-anew` (what cannot change is kept over epochs, `feature_gib=4`,
or computed anew at each step, `feature_gib=0`) for passages of 1 and 2 facts, and one step of the
`inner`, `edge` and `rollout` loop, whose links are `recursive` ones. Each case runs in a process of
its own and trains for three epochs or more over 32 rows; the figure is the median over the steps
after the first epoch. CPU seconds count this process alone, so that others on the machine disturb
them little. `--tiny` takes small random models, to see that it works. Prints one JSON object.

Beside the seconds stands the limit that arithmetic sets: `limit_s` is the time that the matrix
products of a step, counted by torch in one more step that is not timed, take at the speed of a
large product in the same process, and `of_limit` the ratio. `peak_mib` less `loaded_mib` is what
training holds.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import TrainerCallback
from transformers.utils import logging

import latentmas as lm
from latentmas.demo.real import ANSWERS, READ, SMOLLM2, RealRecipe, relay_team
from latentmas.demo.relay import make_rows
from latentmas.environment import hardware, versions
from latentmas.testing import tiny_backbone

CASES = (
    *(f"outer-{facts}-{kept}" for facts in (1, 2) for kept in ("kept", "anew")),
    *("inner", "edge", "rollout"),
)
BATCH, LATENT_STEPS, EPOCH = 16, 18, 2
"""Rows of a step, latent steps, and steps of an epoch."""


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Attention on CPUs, which torch's counter leaves out."""


class Clock(TrainerCallback):
    """CPU seconds and loss of each step."""

    def __init__(self, timed: int) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.flops = 0
        """Of the step after the `timed` ones."""
        self.peak_mib = 0
        """Largest resident size until the end of these."""
        self._timed = timed
        self._counter: FlopCounterMode | None = None
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock, or the counter."""
        if len(self.seconds) == self._timed:
            self.peak_mib = _peak_mib()
            self._counter = FlopCounterMode(display=False, custom_mapping=ON_CPU)
            self._counter.__enter__()
        self._began = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop it."""
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.flops, self._counter = self._counter.get_total_flops(), None
            return
        self.seconds.append(time.process_time() - self._began)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Note the loss."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


def recursive_team(backbone: lm.Backbone, latent_steps: int) -> lm.Graph:
    """The relay with links that have weights throughout, for the other loops."""
    graph = lm.Graph("relay", inputs=["passage", "question"], rounds=1, latent_steps=latent_steps)
    graph.add_agent("reader", backbone, prompt=READ, inner="recursive")
    graph.add_agent("answerer", backbone, prompt=ANSWERS["team"], max_new_tokens=8)
    graph.connect("reader", "answerer.note", link="recursive")
    return graph.output("answerer")


def trainer_of(case: str, given: argparse.Namespace, folder: str, clock: Clock) -> Any:
    """The trainer of a case, on a freshly loaded team."""
    batch, steps = (4, 3) if given.tiny else (BATCH, LATENT_STEPS)
    backbone = tiny_backbone("llama", 32) if given.tiny else lm.Backbone(SMOLLM2, dtype=given.dtype)
    loop, *rest = case.split("-")
    facts = int(rest[0]) if rest else 2
    rows = make_rows(EPOCH * batch, seed=0, facts=facts)
    options: dict[str, Any] = {
        "max_steps": EPOCH + given.steps + 1,
        "per_device_train_batch_size": batch,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "logging_steps": 1,
        "telemetry": False,
        "seed": 0,
    }
    if loop == "outer":
        team = relay_team(backbone, backbone, RealRecipe(latent_steps=steps))
        options |= {"probe_stability": False, "feature_gib": 4.0 if rest[1] == "kept" else 0.0}
    else:
        team = recursive_team(backbone, steps)
        options["targets"] = {"reader": "passage", "answerer": "answer"}
    system = team.compile().load(seed=0)
    kinds: dict[str, tuple[Any, Any]] = {
        "outer": (lm.OuterTrainer, lm.OuterConfig),
        "inner": (lm.InnerTrainer, lm.InnerConfig),
        "edge": (lm.EdgeTrainer, lm.EdgeConfig),
        "rollout": (lm.RolloutTrainer, lm.RolloutConfig),
    }
    trainer, config = kinds[loop]
    return trainer(system, config(folder, **options), train_dataset=rows, callbacks=[clock])


def measure(case: str, given: argparse.Namespace) -> dict[str, Any]:
    """One case, in this process."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    clock = Clock(EPOCH + given.steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(case, given, folder, clock)
        loaded = _peak_mib()
        trainer.train()
    later, speed = clock.seconds[EPOCH:], _product_speed(getattr(torch, given.dtype))
    limit = clock.flops / speed
    return {
        "case": case,
        "cpu_s": round(statistics.median(later), 3),
        "gflop": round(clock.flops / 1e9, 2),
        "gflop_per_s": round(speed / 1e9, 1),
        "limit_s": round(limit, 3),
        "of_limit": round(statistics.median(later) / limit, 2),
        "fastest": round(min(later), 3),
        "slowest": round(max(later), 3),
        "n": len(later),
        "first_epoch_cpu_s": [round(value, 3) for value in clock.seconds[:EPOCH]],
        "peak_mib": clock.peak_mib,
        "loaded_mib": loaded,
        "losses": [round(value, 5) for value in clock.losses],
    }


def _product_speed(dtype: torch.dtype) -> float:
    """Operations per CPU second of a large matrix product: the fastest of some."""
    a, b = torch.randn(1024, 1536).to(dtype), torch.randn(1536, 1024).to(dtype)
    seconds = []
    for _ in range(20):
        began = time.process_time()
        a @ b
        seconds.append(time.process_time() - began)
    return 2 * 1024 * 1536 * 1024 / min(seconds)


def _peak_mib() -> int:
    """Largest resident size of this process so far; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def apart(case: str, given: argparse.Namespace) -> dict[str, Any]:
    """One case, in a process of its own."""
    command = [sys.executable, __file__, "--cases", case, "--here", "--json"]
    command += ["--dtype", given.dtype, "--steps", str(given.steps)]
    done = subprocess.run(
        [*command, *(["--tiny"] if given.tiny else [])], stdout=subprocess.PIPE, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure the cases and print what came out, after each of them to the file too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=6, help="that are timed")
    parser.add_argument("--output", type=Path, help="JSON file, written after each case")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to see that it works")
    parser.add_argument("--json", action="store_true", help="as always")
    parser.add_argument("--here", action="store_true", help="one case, in this process")
    given = parser.parse_args()
    cases = given.cases.split(",")
    if unknown := set(cases) - set(CASES):
        parser.error(f"no case {', '.join(unknown)}; choose among {', '.join(CASES)}")
    if given.here:
        print(json.dumps(measure(cases[0], given)))
        return
    torch.set_num_threads(1)  # what the cases run with
    report: dict[str, Any] = {
        "hardware": hardware(),
        "versions": versions(),
        "shape": {"rows": BATCH, "latent_steps": LATENT_STEPS, "dtype": given.dtype},
        "rows": [],
    }
    for case in cases:
        report["rows"].append(apart(case, given))
        if given.output is not None:
            given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
