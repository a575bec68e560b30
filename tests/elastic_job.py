"""A job that restarts, as under torchrun: one training in peace, one that loses a process."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from transformers import TrainerCallback

import latentmas as lm

ROWS = [{"question": f"{i} + 2", "answer": f"it is {i + 2}"} for i in range(6)]


class Killed(TrainerCallback):
    """Kills rank 1 in the third step, once, with nothing put away."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Die before the step."""
        if state.global_step == 2 and os.environ["RANK"] == "1" and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def train(source: str, folder: Path, callbacks: list[TrainerCallback]) -> None:
    """Four steps, a checkpoint after each; goes on where it was."""
    graph = lm.Graph("two", inputs=["question"], rounds=1, latent_steps=1)
    for name, prompt in (("reader", "{{ question }}"), ("writer", "{{ reader }}")):
        graph.add_agent(name, lm.Backbone(source), prompt=prompt)
    graph.connect("reader", "writer", link="recursive")
    system = graph.output("writer").compile().load()
    settings = {"outer": {"save_steps": 1, "rollout_rows": 0, "probe_stability": False}}
    lm.train(
        system,
        ROWS,
        output_dir=folder,
        loops=["outer"],
        settings=settings,
        max_steps=4,
        per_device_train_batch_size=1,
        resume="auto",
        callbacks=callbacks,
    )


def main(source: str, folder: Path) -> None:
    """Both trainings; the first is over when the job is restarted."""
    if not (folder / "whole" / "team").exists():
        train(source, folder / "whole", [])
    train(source, folder / "killed", [Killed(folder / "was-killed")])


def launch(source: str, folder: str) -> None:
    """What `torchrun --standalone --nproc_per_node=2 --max-restarts=1` does, with forks."""
    # Else restarted processes may read addresses of the old ones: torch keeps the store.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="elastic",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=1,
        monitor_interval=0.1,
        start_method="fork",
    )
    elastic_launch(config, main)(source, Path(folder))
