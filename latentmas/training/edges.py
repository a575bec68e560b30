"""The edge loop: each edge learns by itself to say what its sender would have said in words."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import TrainerCallback

from latentmas.runtime import System
from latentmas.training.config import EdgeConfig
from latentmas.training.data import Data, Reading, drop_long_rows, read_rows
from latentmas.training.losses.edge import EdgeLoss
from latentmas.training.select import choose_links, freeze_all_but
from latentmas.training.targets import find_targets
from latentmas.training.trainer.trainer import LinkTrainer, check_parts

__all__ = ["EdgeTrainer"]


class EdgeTrainer(LinkTrainer):
    """Between the inner and the outer loop: edges learn from the team's own words.

    The text twin speaks; each message is to become what the receiver would have read. It needs no
    answers, computes each row once, and carries links from a random start to where the outer loop
    can begin. `left_out` holds the numbers of rows that are longer than the agents can read.

    An evaluation also rolls out for real, as that of the rollout loop does: with more than one
    latent step, a small loss does not say that messages arrive.

    Example:
        `lm.EdgeTrainer(system, lm.EdgeConfig("out/edge"), train_dataset=rows).train()`
    """

    loop = "edge"
    """Name of the loop."""

    def __init__(
        self,
        system: System,
        config: EdgeConfig | None = None,
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
            LatentMASError: LM402, the graph has no latent edge whose link has weights.
        """
        config = config or EdgeConfig(output_dir="out/edge")
        check_parts(system, config, EdgeConfig)
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
        loss = EdgeLoss(
            system,
            targets=targets,
            cosine_weight=config.cosine_weight,
            mse_weight=config.mse_weight,
            keep_bytes=int(config.feature_gib * 2**30),
        )
        freeze_all_but(system, [link.id for link in chosen])
        super().__init__(
            system,
            loss,
            config,
            train_dataset=rows,
            eval_dataset=held_out,
            callbacks=callbacks,
        )
