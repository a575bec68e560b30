"""The inner loop: each agent's inner link learns to turn states into input embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from latentmas.errors import LatentMASError
from latentmas.runtime import System
from latentmas.training.config import InnerConfig
from latentmas.training.data import Data, Reading, Row, drop_long_rows, read_rows
from latentmas.training.losses.inner import InnerLoss
from latentmas.training.select import freeze_all_but
from latentmas.training.speech import Speech
from latentmas.training.targets import find_targets
from latentmas.training.trainer.trainer import LinkTrainer, check_parts

__all__ = ["InnerTrainer"]


class InnerTrainer(LinkTrainer):
    """Cosine regression of inner(h_t) to Emb(x_{t+1}) over each agent's own text.

    Backbones run without gradients, and once per row; what they make of it is kept for later
    epochs. All inner links learn at once. `left_out` holds the numbers of rows that are longer than
    the agents can read.

    An evaluation also rolls out for real: `eval_nearest_rollout` is the share of latent steps whose
    inner(h) is nearer to the agent's right word than to any other, `eval_nearest_forced` the same
    without a rollout.

    Example:
        `lm.InnerTrainer(system, lm.InnerConfig("out/inner"), train_dataset=rows).train()`
    """

    loop = "inner"
    """Name of the loop."""
    rolled = "inner"
    """Outputs that an evaluation judges."""

    def __init__(
        self,
        system: System,
        config: InnerConfig | None = None,
        *,
        train_dataset: Data,
        eval_dataset: Data | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
    ) -> None:
        """Check the data and prepare.

        Args:
            system: System whose inner links are trained; its outer links are frozen meanwhile.
            config: Arguments.
            train_dataset: Sequence of mappings, or a JSONL file, with the graph's inputs and a text
                for each agent.
            eval_dataset: Held-out rows of the same form.
            callbacks: Callbacks of `transformers`.

        Raises:
            DataError: A row lacks a field.
            LatentMASError: the graph has no inner link to train.
        """
        config = config or InnerConfig(output_dir="out/inner")
        check_parts(system, config, InnerConfig)
        rows = read_rows(train_dataset, config.columns)
        held_out = None if eval_dataset is None else read_rows(eval_dataset, config.columns)
        targets = find_targets(system, config.targets, config.answer_field, rows)
        fields = [*system.plan.graph.inputs, *targets.values()]
        rows.check(fields, "train_dataset")
        if held_out is not None:
            held_out.check(fields, "eval_dataset")
        reading = Reading(own=targets, said=targets, feedback=False)
        rows, self.left_out = drop_long_rows(system, system.plan, rows, reading, config.max_length)
        inner = [
            link.id for link in system.plan.links if link.role == "inner" and link.n_parameters
        ]
        if not inner:
            raise LatentMASError("LM402: no inner link has weights; there is nothing to train")
        loss = InnerLoss(
            system,
            targets,
            cosine_weight=config.cosine_weight,
            mse_weight=config.mse_weight,
            keep_bytes=int(config.feature_gib * 2**30),
        )
        freeze_all_but(system, inner)
        super().__init__(
            system,
            loss,
            config,
            train_dataset=rows,
            eval_dataset=held_out,
            callbacks=callbacks,
        )

    def speech(self, rows: Sequence[Row]) -> Speech:
        """The texts that the loss is taken on."""
        module: Any = self.accelerator.unwrap_model(self.model)
        return Speech(self.system, module.targets)
