"""Methods of a trainer over several processes, some of which may hold one backbone together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import Trainer

from latentmas.errors import LatentMASError
from latentmas.io import digest_rows

if TYPE_CHECKING:
    from torch import nn

    from latentmas.runtime import System
    from latentmas.training.data import TrainingRows

__all__ = ["MeshTraining", "check_same_training", "check_strategy"]

_SETTINGS = (
    "seed",
    "data_seed",
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "eval_strategy",
    "save_strategy",
    "rounds",
    "latent_steps",
)
"""Arguments by which processes would make different calls."""


def check_strategy(args: Any) -> None:
    """Refuse strategies that shard what is trained.

    Raises:
        LatentMASError: FSDP or DeepSpeed is asked for.
    """
    asked = {
        "fsdp": getattr(args, "fsdp", None) or os.environ.get("ACCELERATE_USE_FSDP") == "true",
        "deepspeed": getattr(args, "deepspeed", None)
        or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true",
        "parallelism_config": getattr(args, "parallelism_config", None),
    }
    for name, wanted in asked.items():
        if wanted:
            raise LatentMASError(
                f"{name} is not supported: it shards the module that is trained, which holds the "
                "links alone, a few million numbers; for backbones larger than a device, load the "
                "team with tensor_parallel=N or device_map='auto', and leave it out"
            )


def check_same_training(
    system: System, args: Any, train_rows: TrainingRows, eval_rows: TrainingRows | None
) -> None:
    """Compare settings and data of the processes of a group, before a backbone is used.

    Raises:
        LatentMASError: They differ; it is raised on all of them.
    """
    if system.mesh is None:
        return
    settings = {name: getattr(args, name, None) for name in _SETTINGS}
    sets = train_rows, eval_rows
    data = [None if rows is None else digest_rows(rows.plain()) for rows in sets]
    learn = [id for id in system.link_ids() if _learns(system.link(id))]
    team = system.plan.digest, learn
    system.mesh.check_same("train", team=team, data=data, settings=settings)


class MeshTraining(Trainer):
    """Processes of a tensor-parallel group train on the same rows; groups, on different ones.

    All processes average their gradients. Those of a group are equal, so that this is the mean over
    groups, and links stay equal to the last bit on all processes.
    """

    system: System
    """System whose links are trained."""

    def create_accelerator_and_postprocess(self) -> None:
        """As transformers', with data parted by groups rather than processes."""
        super().create_accelerator_and_postprocess()
        mesh = self.system.mesh
        if mesh is not None and self.args.world_size != mesh.replicas * mesh.tensor_parallel:
            count = mesh.replicas * mesh.tensor_parallel
            raise LatentMASError(
                f"the team was loaded over {count} processes, and the trainer found "
                f"{self.args.world_size}; start the script with torchrun"
            )
        self.accelerator.state.device_mesh = None if mesh is None else mesh.devices

    def get_tp_size(self) -> int:
        """Number of processes that train on the same rows."""
        return 1 if self.system.mesh is None else self.system.mesh.tensor_parallel

    def check_same_batch(self, inputs: Mapping[str, Any]) -> None:
        """Compare the rows of a batch on the processes of a group.

        Raises:
            LatentMASError: They differ.
        """
        if self.system.mesh is not None:
            rows, numbers = inputs.get("rows"), inputs.get("numbers")
            self.system.mesh.check_same("a batch of the training", rows=rows, numbers=numbers)


def _learns(link: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in link.parameters())
