"""Methods of a trainer that write and read checkpoints: saved teams with an optimizer's state."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Trainer

from latentmas.errors import WeightsError
from latentmas.io import load_link_weights, save_system
from latentmas.redact import get_logger
from latentmas.safe_data import inside
from latentmas.training.trainer.checkpoint import writing_checkpoint

if TYPE_CHECKING:
    from latentmas.runtime import System
    from latentmas.training.monitoring.recording import Recording

__all__ = ["Checkpointing"]

SHARE = re.compile(r"\n\t\w+_steps: 0\.\d+ \(from args\) != \d+ \(from trainer_state\.json\)")


class _WithoutShares(logging.Filter):
    """Keeps transformers from warning of differences that are none.

    Arguments give some intervals as a share of all steps, and checkpoints as a number of steps.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether anything is left to warn of."""
        text = record.getMessage()
        record.msg, record.args = SHARE.sub("", text), ()
        return record.msg == text or "\n\t" in record.msg


get_logger("transformers.trainer_utils").addFilter(_WithoutShares())


class Checkpointing(Trainer):
    """Checkpoints of links, which are saved teams; never a backbone."""

    system: System
    """System whose links are trained."""
    _recording: Recording | None
    _before: dict[str, Tensor]

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """A saved team; never a backbone, never a pickle of the arguments."""
        if self._recording is not None:
            self._recording.update(self.state.log_history, self.state.global_step)
        save_system(self.system, output_dir or str(self.args.output_dir), into=True)

    def _save_checkpoint(self, *args: Any, **options: Any) -> None:
        with writing_checkpoint(str(self.args.output_dir)):
            super()._save_checkpoint(*args, **options)

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: Any,
    ) -> tuple[int, int]:
        """As transformers', which takes one more step after the last one within an epoch."""
        begun: tuple[int, int] = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        return (num_train_epochs, 0) if self.state.global_step >= max_steps else begun

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_link_weights(self.system, resume_from_checkpoint)
        if self._recording is not None:
            self._recording.resume(resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except Exception as error:  # torch raises what it likes on a state that does not fit
            self._put_back()
            raise WeightsError(
                f"cannot resume from {checkpoint!r}: it was trained with other links or another "
                f"optimizer ({error!r:.300}); use the same train_links, or start again"
            ) from error

    def _load_rng_state(self, checkpoint: str | None) -> None:
        try:
            super()._load_rng_state(checkpoint)
        except Exception as error:  # as above
            self._put_back()
            raise WeightsError(
                f"LM502 cannot resume from {checkpoint!r}: its states of random generators are "
                f"damaged ({error!r:.300}); take another checkpoint"
            ) from error

    @torch.no_grad()
    def _put_back(self) -> None:
        """Links and adapters as they were before a checkpoint was opened."""
        for name, tensor in self.system.state_dict().items():
            tensor.copy_(self._before[name])

    def _load_best_model(self) -> None:
        best = Path(str(self.state.best_model_checkpoint))
        if not inside(Path(str(self.args.output_dir)), best):
            raise WeightsError(
                f"LM502 the best checkpoint {str(best)!r:.200} lies outside of the output folder "
                f"{str(self.args.output_dir)!r}; load it with load_link_weights if you trust it"
            )
        load_link_weights(self.system, best)
