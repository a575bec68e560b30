"""What both trainers share: rows of text in, links-only checkpoints out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback

from latentmas.errors import DataError, WeightsError
from latentmas.io import load_link_weights, save_system
from latentmas.runtime import System
from latentmas.training.config import _LinkTraining

__all__ = ["LinkTrainer"]

Rows = Sequence[Mapping[str, Any]]


class LinkTrainer(Trainer):
    """`transformers.Trainer` over a loss module that registers links only.

    A checkpoint is a saved team (links, graph, prompts) beside the optimizer's state, so
    `System.from_pretrained(checkpoint)` opens it.
    """

    def __init__(
        self,
        system: System,
        loss: nn.Module,
        config: _LinkTraining,
        *,
        train_dataset: Rows,
        eval_dataset: Rows | None,
        callbacks: Sequence[TrainerCallback] | None,
    ) -> None:
        self.system = system
        super().__init__(
            model=loss,
            args=config,
            data_collator=_rows,
            train_dataset=train_dataset,  # type: ignore[arg-type]  # any sequence of mappings
            eval_dataset=eval_dataset,  # type: ignore[arg-type]
            callbacks=list(callbacks or []),
        )
        self.remove_callback(PrinterCallback)  # logs are data for callbacks, not for stdout
        self.can_return_loss = True
        self.label_names: list[str] = []

    def train(  # type: ignore[override]  # the other arguments pass through
        self, resume_from_checkpoint: bool | str | None = None, **options: Any
    ) -> Any:
        """Train; as `transformers.Trainer.train`, with backbones left frozen and in eval mode."""
        _check_resume(self.args.output_dir, resume_from_checkpoint)
        return super().train(resume_from_checkpoint, **options)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """A saved team; never a backbone, never a pickle of the arguments."""
        save_system(self.system, output_dir or str(self.args.output_dir), into=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_link_weights(self.system, resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except ValueError as error:
            raise WeightsError(
                f"cannot resume from {checkpoint!r}: it was trained with other links or another "
                f"optimizer ({error}); use the same train_links, or start anew"
            ) from error

    def _load_best_model(self) -> None:
        load_link_weights(self.system, str(self.state.best_model_checkpoint))

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor, None, None]:
        """The loss of an evaluation batch."""
        with torch.no_grad():
            loss = model(**inputs)["loss"].detach()
        return loss, None, None


def _rows(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {"rows": rows}


def _check_resume(output_dir: str | None, resume: bool | str | None) -> None:
    if not resume:
        return
    if isinstance(resume, str):
        if not Path(resume).is_dir():
            raise DataError(f"cannot resume: there is no checkpoint folder {resume!r}")
    elif not any(Path(str(output_dir)).glob("checkpoint-*")):
        raise DataError(
            f"cannot resume: {str(output_dir)!r} has no checkpoint; train with "
            'save_strategy="steps", or without resume'
        )
