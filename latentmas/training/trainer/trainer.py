"""What all trainers share: rows of text in, links-only checkpoints out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerCallback

from latentmas.atomic import check_writable
from latentmas.errors import LatentMASError, TrainingInterrupted
from latentmas.runtime import System
from latentmas.runtime.loading.placement import check_system
from latentmas.safe_data import inside
from latentmas.training.config import LinkConfig
from latentmas.training.data import Row, TrainingRows, read_rows
from latentmas.training.memory.idle import IdleMemory
from latentmas.training.monitoring.drift import rollout_accuracy, warn_of_drift
from latentmas.training.monitoring.log import MetricsLog
from latentmas.training.monitoring.progress import Pace, ProgressLines
from latentmas.training.monitoring.recording import Recording
from latentmas.training.monitoring.settings import write_settings
from latentmas.training.monitoring.telemetry import Telemetry
from latentmas.training.speech import Speech
from latentmas.training.trainer.checkpoint import (
    check_checkpoint,
    find_checkpoint,
    set_aside_checkpoints,
)
from latentmas.training.trainer.checkpointing import Checkpointing
from latentmas.training.trainer.interrupt import Interruption
from latentmas.training.trainer.mesh import MeshTraining, check_same_training, check_strategy

__all__ = ["LinkTrainer", "check_parts"]

SPEED = "target_tokens_per_second"


def _copies(system: System) -> dict[str, Tensor]:
    return {name: t.detach().to("cpu", copy=True) for name, t in system.state_dict().items()}


class LossModule(Protocol):
    """What a loss module offers beside `forward`."""

    def n_items(self, rows: Sequence[Row], numbers: Sequence[int] | None = None) -> int:
        """Number of terms of the rows' loss."""
        ...


def check_parts(system: Any, config: Any, kind: type[LinkConfig]) -> None:
    """Refuse a plan in place of a system, another loop's arguments, and values out of range.

    Raises:
        LatentMASError: `rollout_rows` is negative, or the loop cannot run with this strategy.
        TypeError: saying what was wanted.
    """
    check_system("what is trained", system)
    if not isinstance(config, kind):
        raise TypeError(f"this loop takes {kind.__name__}, not {type(config).__name__}")
    check_strategy(config)
    if config.rollout_rows < 0:
        raise LatentMASError(
            f"rollout_rows is {config.rollout_rows}; it takes a whole number of 0 or more"
        )


class LinkTrainer(MeshTraining, Checkpointing):
    """`transformers.Trainer` over a loss module that registers links and agents' adapters only.

    A checkpoint is a saved team (links, graph, prompts) beside the optimizer's state, so
    `System.from_pretrained(checkpoint)` opens it. `metrics.jsonl` in the output folder holds every
    entry of the log; the log of an earlier training there becomes `metrics-1.jsonl`. The system
    keeps a record of the training, which is saved with it.
    """

    args: LinkConfig
    """Arguments of the training."""
    loop: str
    """Name of the loop in the registry and in the system's history."""
    rolled: Literal["outer", "inner"] = "outer"
    """Whose outputs an evaluation judges after real rollouts: outer links' messages, or the latents
    that inner links make."""
    left_out: list[int]
    """Numbers of rows that are longer than the agents can read."""

    def __init__(
        self,
        system: System,
        loss: nn.Module,
        config: LinkConfig,
        *,
        train_dataset: TrainingRows,
        eval_dataset: TrainingRows | None,
        callbacks: Sequence[TrainerCallback] | None,
    ) -> None:
        self.system = system
        """System whose links are trained."""
        self.telemetry = Telemetry(system) if config.telemetry else None
        """Monitor of norms and messages; None without telemetry."""
        self._log = MetricsLog(str(config.output_dir))
        self._recording: Recording | None = None
        self._before: dict[str, Tensor] = {}
        self._evaluated: list[tuple[float, float]] = []
        """Loss and number of terms of each batch of an evaluation."""
        self._held_out = False
        self._pace = Pace()
        self._progress = ProgressLines(self.loop, self._pace) if config.progress else None
        self._interruption = Interruption()
        watchers = [self._progress, self._interruption, IdleMemory()]
        check_same_training(system, config, train_dataset, eval_dataset)
        check_writable(Path(str(config.output_dir)) / "metrics.jsonl")  # the folder is made next
        super().__init__(
            model=loss,
            args=config,
            data_collator=_collate,
            train_dataset=train_dataset,  # type: ignore[arg-type]  # any sequence
            eval_dataset=eval_dataset,  # type: ignore[arg-type]
            callbacks=[*(callbacks or []), *(one for one in watchers if one is not None)],
        )
        self.remove_callback(PrinterCallback)  # logs are data for callbacks, not for stdout
        self.can_return_loss = True
        """Flag of transformers: evaluation returns a loss."""
        self.label_names: list[str] = []
        """Setting of transformers: batches have no label tensors."""
        self.model_accepts_loss_kwargs = True
        """Flag of transformers: the loss takes the number of items in a batch."""

    def train(  # type: ignore[override]  # the other arguments pass through
        self, resume_from_checkpoint: bool | str | None = None, **options: Any
    ) -> Any:
        """Train like `transformers.Trainer.train`, with backbones frozen and in eval mode.

        Ctrl-C lets the step finish, saves a checkpoint and raises; a second Ctrl-C ends at once.

        Args:
            resume_from_checkpoint: Folder of a checkpoint; True for the last complete one; or
                `"auto"` for that one if there is any, for jobs that are restarted.
            **options: Further arguments of `transformers.Trainer.train`.

        Raises:
            DataError: A checkpoint to resume from does not exist, or one cannot be written.
            WeightsError: A part of the checkpoint is damaged; no link has changed.
            LatentMASError: LM403, a loss or gradient is not finite.
            TrainingInterrupted: Ctrl-C was pressed; the error names the checkpoint.
        """
        found = find_checkpoint(str(self.args.output_dir), resume_from_checkpoint)
        if found is not None:
            check_checkpoint(Path(found), self.system)
            self._before = _copies(self.system)
        rows: Any = self.train_dataset
        held_out: Any = self.eval_dataset
        self._recording = Recording(self.system, self.loop, self.args, rows, held_out)
        # Processes of one training would stop at different steps, and wait for each other.
        alone = self.args.world_size == 1
        try:
            if self.is_world_process_zero():
                self._begin_folder(found, self._recording.facts)
            self._pace.restart()
            with self._interruption.listening() if alone else nullcontext():
                outcome = super().train(found, **options)
        finally:
            if self._progress is not None:
                self._progress.close()
            self._recording.meter.stop()
        self._recording.update(self.state.log_history, self.state.global_step)
        if self._interruption.asked:
            raise self._interrupted()
        return outcome

    def _begin_folder(self, checkpoint: str | None, facts: Mapping[str, Any]) -> None:
        """Write what is trained, and set aside what an earlier training left."""
        folder = Path(str(self.args.output_dir))
        goes_on = checkpoint is not None and inside(folder, Path(checkpoint))
        self._log.begin(goes_on=goes_on)
        write_settings(folder, facts, self.args)
        if not goes_on:
            set_aside_checkpoints(folder)

    def _interrupted(self) -> TrainingInterrupted:
        step = self.state.global_step
        checkpoint = Path(str(self.args.output_dir)) / f"checkpoint-{step}"
        again = "the same trainer, then: trainer.train(resume_from_checkpoint=True)"
        return TrainingInterrupted(step, str(checkpoint), again)

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """Evaluate, and note it in the record of a training that has ended.

        The loss is a mean over all terms of all rows, however they are batched.
        """
        given = args[0] if args else options.pop("eval_dataset", None)
        if given is not None and not isinstance(given, TrainingRows):
            given = read_rows(given, getattr(self.args, "columns", None))
        scores = super().evaluate(given, *args[1:], **options)
        if self._recording is not None:
            self._recording.update(self.state.log_history, self.state.global_step)
        return scores

    def evaluation_loop(self, dataloader: Any, *args: Any, **options: Any) -> Any:
        """As transformers', with the exact loss and the loop's own scores."""
        self._evaluated, self._held_out = [], dataloader.dataset is self.eval_dataset
        output = super().evaluation_loop(dataloader, *args, **options)
        total = torch.tensor(self._evaluated).sum(dim=0)
        if self.args.world_size > 1:
            total = self.accelerator.reduce(total.to(self.args.device))
        found = {"loss": float(total[0] / total[1].clamp_min(1))}
        found |= self.held_out_metrics(dataloader.dataset.plain())
        prefix = options.get("metric_key_prefix", "eval")
        scores = {f"{prefix}_{name}": value for name, value in found.items()}
        return output._replace(metrics={**(output.metrics or {}), **scores})

    def held_out_metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """Scores beside the loss, by name without prefix; loops may add theirs.

        All loops roll out for real, on up to `rollout_rows` rows, and warn of drift and collapse:
        `rollout_accuracy` says what the scores mean. They are logged, and may choose the best
        checkpoint or end the training.

        Args:
            rows: that are evaluated on.
        """
        chosen = rows[: self.args.rollout_rows]
        speech = self.speech(chosen) if chosen else None
        if speech is None:
            return {}
        own: Any = self.eval_dataset
        found = rollout_accuracy(
            self.system,
            chosen,
            speech=speech,
            numbers=[-2 - n for n, _ in own[: len(chosen)]] if self._held_out else None,
            links=self.rolled,
            batch_size=self.args.per_device_eval_batch_size,
        )
        warn_of_drift(found, self.system.plan, self.rolled)
        return found

    def speech(self, rows: Sequence[Row]) -> Speech | None:
        """What agents are to say over a row, to judge rollouts by; None leaves them out."""
        module: Any = self.accelerator.unwrap_model(self.model)
        return getattr(module, "speech", None)

    # --- items: the loss is a mean over all terms of a step, on all processes ------------------

    def _get_num_items_in_batch(
        self, batch_samples: list[Any], device: torch.device
    ) -> Tensor | int | None:
        module: Any = self.accelerator.unwrap_model(self.model)
        count = sum(module.n_items(batch["rows"], batch["numbers"]) for batch in batch_samples)
        if not batch_samples:
            return None
        self._pace.begin_step(count)
        items = torch.tensor(count, device=device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            items = self.accelerator.gather(items).sum() // self.get_tp_size()
        return items

    # --- watching --------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss, which must be finite."""
        self.check_same_batch(inputs)
        watching = model.training and self.telemetry is not None and self._logs_next()
        if watching:
            self._begin_watching()
        try:
            found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            if watching:
                self._end_watching()
        value: Any = found[0] if isinstance(found, tuple) else found
        if not torch.isfinite(value.detach()).all():
            raise LatentMASError(self._not_finite("the loss", inputs))
        self._last_numbers = inputs.get("numbers")
        if model.training:
            self._pace.add(float(value.detach()))
        return found

    def _logs_next(self) -> bool:
        every = self.state.logging_steps
        return bool(every) and (self.state.global_step + 1) % max(1, int(every)) == 0

    def _begin_watching(self) -> None:
        assert self.telemetry is not None
        self.telemetry.begin()

    def _end_watching(self) -> None:
        assert self.telemetry is not None
        self.telemetry.end()

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        if self.telemetry is not None and self._logs_next():
            self.telemetry.gradients()
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)).all():
            raise LatentMASError(self._not_finite("the gradient", {"numbers": self._last_numbers}))
        return norm

    def _not_finite(self, what: str, inputs: Mapping[str, Any]) -> str:
        numbers = inputs.get("numbers") or []
        rows = ", ".join(str(n) for n in numbers) or "unknown"
        saved = sorted(Path(str(self.args.output_dir)).glob("checkpoint-*"))
        kept = f"the last checkpoint is {str(saved[-1])!r}" if saved else "there is no checkpoint"
        return (
            f"LM403: {what} is not finite at step {self.state.global_step + 1}, rows {rows} of "
            f"train_dataset; links are as before the step, and {kept}; lower the learning rate, or "
            "look at these rows"
        )

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """Log, with telemetry beside the loss, and write a line of `metrics.jsonl`."""
        if self.telemetry is not None and "loss" in logs:
            logs = logs | self.telemetry.numbers | {SPEED: self._pace.recent_rate()}
        if self._recording is not None and "train_runtime" in logs:
            logs = logs | self._recording.cost_log
        super().log(logs, *args, **options)
        if self.is_world_process_zero():
            self._log.write({"step": self.state.global_step, **logs})

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """The loss of an evaluation batch.

        Rows of the held-out data are numbered apart from those that are trained on, and others not
        at all: what is kept of one must not be taken for another's.
        """
        self.check_same_batch(inputs)
        numbers = [-2 - number for number in inputs["numbers"]] if self._held_out else None
        inputs = {**inputs, "numbers": numbers}
        with torch.no_grad():
            loss = model(**inputs)["loss"].detach()
        module: Any = self.accelerator.unwrap_model(self.model)
        items = module.n_items(inputs["rows"], numbers)
        self._evaluated.append((float(loss) * items, float(items)))
        return loss, None, None


def _collate(rows: list[tuple[int, Row]]) -> dict[str, Any]:
    return {"rows": [row for _, row in rows], "numbers": [number for number, _ in rows]}
