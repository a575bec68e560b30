"""The rollout loop: links learn to stay on course when they read their own outputs."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from latentmas.errors import LatentMASError, WeightsError
from latentmas.io import load_tensors, save_tensors
from latentmas.runtime import System
from latentmas.training.config import RolloutConfig
from latentmas.training.data import Data, Reading, drop_long_rows, read_rows
from latentmas.training.losses.rollout import RolloutLoss
from latentmas.training.select import choose_links, freeze_all_but
from latentmas.training.targets import find_targets
from latentmas.training.trainer.trainer import LinkTrainer, check_parts

__all__ = ["RolloutTrainer"]

TEACHERS = ("text", "soft_token")
COPIES = "refreshed.safetensors"
"""In a checkpoint: the inner links that have made the rollouts that links learn from."""


class RolloutTrainer(LinkTrainer):
    """Between the edge and the outer loop: links learn on the states that they bring about.

    The inner and the edge loop see states of words alone; in a rollout each latent step reads what
    the last one made, and errors grow. Here a rollout is trained as parallel passes: the first
    reads the words, each later one reads the inner link's outputs of the pass before, at all
    positions at once. Start from links that these two loops have trained. `left_out` holds the
    numbers of rows that are longer than the agents can read.

    With `refresh_steps`, links learn from states of real rollouts instead, which are kept for so
    many steps; then a random start will do.

    An evaluation also rolls out for real: `eval_nearest_rollout` is the share of message rows that
    are nearer to the right word than to any other, `eval_nearest_forced` the same without a
    rollout, and `eval_message_cosine` tells how alike messages of different rows are.

    Example:
        `lm.RolloutTrainer(system, lm.RolloutConfig("out/rollout"), train_dataset=rows).train()`
    """

    args: RolloutConfig
    """Arguments of the training."""
    loop = "rollout"
    """Name of the loop."""

    def __init__(
        self,
        system: System,
        config: RolloutConfig | None = None,
        *,
        train_dataset: Data,
        eval_dataset: Data | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
    ) -> None:
        """Check the data and prepare.

        Args:
            system: System whose links are trained.
            config: Arguments; `train_links` selects the links to train.
            train_dataset: Sequence of mappings, or a JSONL file, with the graph's inputs, and with
                `targets` a text for each agent.
            eval_dataset: Held-out rows of the same form.
            callbacks: Callbacks of `transformers`.

        Raises:
            DataError: A row lacks a field.
            LatentMASError: LM402, the graph has no latent edge whose links have weights; or an
                argument has no such value.
            UnknownNameError: `train_links` names no link.
        """
        config = config or RolloutConfig(output_dir="out/rollout")
        check_parts(system, config, RolloutConfig)
        _check(config)
        steps = _steps(system)
        chosen = choose_links(system.plan, config.train_links)
        rows = read_rows(train_dataset, config.columns)
        held_out = None if eval_dataset is None else read_rows(eval_dataset, config.columns)
        targets = None
        fields = list(system.plan.graph.inputs)
        if config.targets is not None:
            targets = find_targets(system, config.targets, config.answer_field, rows)
            fields += targets.values()
        rows.check(fields, "train_dataset")
        if held_out is not None:
            held_out.check(fields, "eval_dataset")
        reading = Reading(said=targets or {})
        rows, self.left_out = drop_long_rows(system, system.plan, rows, reading, config.max_length)
        soft = config.teacher_temperature if config.teacher == "soft_token" else None
        self.passes = min(config.passes, steps - 1)
        """Number of passes after the teacher-forced one."""
        loss = RolloutLoss(
            system,
            targets=targets,
            passes=self.passes,
            pass_weights=config.pass_weights,
            gradient=config.gradient,
            mix=config.mix,
            row_clip=config.row_clip,
            soft_temperature=soft,
            cosine_weight=config.cosine_weight,
            mse_weight=config.mse_weight,
            seed=config.seed,
            rows=rows,
            refresh_steps=config.refresh_steps,
            keep_bytes=int(config.feature_gib * 2**30),
        )
        freeze_all_but(system, [link.id for link in chosen])
        super().__init__(
            system,
            loss,
            config,
            train_dataset=rows,
            eval_dataset=held_out,
            callbacks=[_Curriculum(loss, self.passes), *(callbacks or [])],
        )
        self._loss = loss

    def _begin_watching(self) -> None:
        super()._begin_watching()
        module: Any = self.accelerator.unwrap_model(self.model)
        module.pass_losses = {}

    def _end_watching(self) -> None:
        super()._end_watching()
        module: Any = self.accelerator.unwrap_model(self.model)
        assert self.telemetry is not None
        found = module.pass_losses or {}
        self.telemetry.numbers |= {f"loss/pass{n}": value for n, value in sorted(found.items())}
        module.pass_losses = None

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """A saved team, and the links that have made the rollouts that are learnt from."""
        super()._save(output_dir, state_dict)
        refreshed = self._loss.refreshed
        if refreshed is not None and (state := refreshed.copies_state()):
            save_tensors(state, Path(output_dir or str(self.args.output_dir)) / COPIES, {})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        path, refreshed = Path(resume_from_checkpoint) / COPIES, self._loss.refreshed
        if refreshed is not None and not path.exists():
            refreshed.forget()
        elif refreshed is not None:  # judged first, so that a bad file leaves the links alone
            try:
                refreshed.restore(load_tensors(path), self._loss.inner_links())
            except ValueError as error:
                raise WeightsError(f"LM502 {path} is not of these links: {error!s:.300}") from error
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """Loss over all passes, and what messages say after real rollouts."""
        module: Any = self.accelerator.unwrap_model(self.model)
        module.passes = self.passes  # a curriculum sets its own again
        return super().evaluate(*args, **options)


class _Curriculum(TrainerCallback):
    """One pass more after each of equal parts of the steps."""

    def __init__(self, loss: RolloutLoss, passes: int) -> None:
        self.loss, self.passes = loss, passes

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Choose by the step alone, so that a resumed run goes on alike."""
        part = state.global_step * self.passes // max(1, state.max_steps)
        self.loss.passes = min(part + 1, self.passes)
        self.loss.begin_step(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the loss with all passes."""
        self.loss.passes = self.passes


def _steps(system: System) -> int:
    """Latent steps of the agent that takes most of them.

    Raises:
        LatentMASError: LM402, no agent sends latents.
    """
    graph = system.plan.graph
    senders = {step.agent for step in system.plan.steps if step.op == "rollout"}
    steps = max((graph.steps_of(graph.agent(name)) for name in senders), default=0)
    if not steps:
        raise LatentMASError(
            f"LM402: no agent of graph {graph.name!r} sends latents, so there are no rollouts to "
            "train on; connect two agents with a latent edge of latent_steps=1 or more"
        )
    return steps


def _check(config: RolloutConfig) -> None:
    """Refuse values that an option does not take.

    Raises:
        LatentMASError: naming the option, what was found and what it takes.
    """
    weights = config.pass_weights
    every, passed = config.refresh_steps, weights or config.mix or config.row_clip
    sound = {
        "refresh_steps": (
            every is None or (every >= 1 and not passed),
            "a whole number of 1 or more, without pass_weights, mix and row_clip; or None",
        ),
        "passes": (config.passes >= 1, "a whole number of 1 or more"),
        "pass_weights": (
            weights is None
            or (len(weights) == config.passes + 1 and all(isfinite(w) and w > 0 for w in weights)),
            f"passes + 1 = {config.passes + 1} positive numbers, the first for the teacher-forced "
            "pass",
        ),
        "mix": (0 <= config.mix <= 1, "a probability from 0 to 1"),
        "row_clip": (config.row_clip is None or config.row_clip > 0, "a positive number, or None"),
        "teacher": (config.teacher in TEACHERS, f"one of {', '.join(TEACHERS)}"),
        "teacher_temperature": (config.teacher_temperature > 0, "a positive number"),
    }
    for name, (fine, allowed) in sound.items():
        if not fine:
            raise LatentMASError(f"{name} is {getattr(config, name)!r}; it takes {allowed}")
