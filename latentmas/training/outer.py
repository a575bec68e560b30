"""The outer loop: links learn from the final answer, through the unrolled recursion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from latentmas.evaluation import accuracy
from latentmas.runtime import System
from latentmas.training._trainer import LinkTrainer, Rows
from latentmas.training.config import OuterConfig
from latentmas.training.losses import OuterLoss, check_rows
from latentmas.training.select import check_reach, choose_links, freeze_all_but

__all__ = ["OuterTrainer"]


class OuterTrainer(LinkTrainer):
    """Cross-entropy of the output agent's answer, on-policy, with exact gradients.

    Example:
        `lm.OuterTrainer(system, lm.OuterConfig("out/outer", rounds=3), train_dataset=rows).train()`
    """

    args: OuterConfig

    def __init__(
        self,
        system: System,
        config: OuterConfig | None = None,
        *,
        train_dataset: Rows,
        eval_dataset: Rows | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
    ) -> None:
        """Check data and reach, and prepare.

        Args:
            system: whose links are trained.
            config: arguments; `train_links` says which links learn.
            train_dataset: a sequence of mappings: the graph's inputs and the answer.
            eval_dataset: likewise.
            callbacks: of `transformers`.

        Raises:
            DataError: a row lacks a field.
            GraphError: LM401 for a link that the loss cannot reach; LM113 for a depth out of range.
            UnknownNameError: `train_links` names no link.
        """
        config = config or OuterConfig(output_dir="out/outer")
        plan = system.plan.replace(rounds=config.rounds, latent_steps=config.latent_steps)
        chosen = choose_links(plan, config.train_links)
        check_reach(plan, chosen)
        fields = [*plan.graph.inputs, config.answer_field]
        check_rows(train_dataset, fields, "train_dataset")
        if eval_dataset is not None:
            check_rows(eval_dataset, fields, "eval_dataset")
        loss = OuterLoss(
            system,
            plan,
            answer_field=config.answer_field,
            round_weights=config.round_weights,
            executor=config.executor,
        )
        freeze_all_but(system, [link.id for link in chosen])
        super().__init__(
            system,
            loss,
            config,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
        )

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss, and exact match of decoded answers as `eval_exact_match`."""
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        if self.args.eval_exact_match and rows is not None:
            result = self.system.run(
                rows,
                rounds=self.args.rounds,
                latent_steps=self.args.latent_steps,
                max_new_tokens=self.args.eval_max_new_tokens,
                batch_size=self.args.per_device_eval_batch_size,
            )
            answers = [str(row[self.args.answer_field]) for row in rows]
            scored = {f"{metric_key_prefix}_exact_match": accuracy(result.texts, answers)}
            metrics.update(scored)
            self.log(scored)
        return metrics
