"""The inner loop: each agent's inner link learns to turn states into input embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback

from latentmas.errors import DataError, LatentMASError
from latentmas.runtime import System
from latentmas.training._trainer import LinkTrainer, Rows
from latentmas.training.config import InnerConfig
from latentmas.training.losses import InnerLoss, check_rows
from latentmas.training.select import freeze_all_but

__all__ = ["InnerTrainer"]


class InnerTrainer(LinkTrainer):
    """Cosine regression of inner(h_t) to Emb(x_{t+1}) over each agent's own text.

    Backbones run without gradients, so a step is cheap. All inner links learn at once.

    Example:
        `lm.InnerTrainer(system, lm.InnerConfig("out/inner"), train_dataset=rows).train()`
    """

    def __init__(
        self,
        system: System,
        config: InnerConfig | None = None,
        *,
        train_dataset: Rows,
        eval_dataset: Rows | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
    ) -> None:
        """Check the data and prepare.

        Args:
            system: whose inner links are trained; outer links are frozen meanwhile.
            config: arguments.
            train_dataset: a sequence of mappings: the graph's inputs and a text for each agent.
            eval_dataset: likewise.
            callbacks: of `transformers`.

        Raises:
            DataError: a row lacks a field.
            LatentMASError: the graph has no inner link to train.
        """
        config = config or InnerConfig(output_dir="out/inner")
        targets = _targets(system, config, train_dataset)
        fields = [*system.plan.graph.inputs, *targets.values()]
        check_rows(train_dataset, fields, "train_dataset")
        if eval_dataset is not None:
            check_rows(eval_dataset, fields, "eval_dataset")
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
        )
        freeze_all_but(system, inner)
        super().__init__(
            system,
            loss,
            config,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
        )


def _targets(system: System, config: InnerConfig, rows: Rows) -> dict[str, str]:
    """The field with each agent's text."""
    agents = [agent.name for agent in system.plan.graph.agents]
    if isinstance(config.targets, str):
        return dict.fromkeys(agents, config.targets)
    given: Mapping[str, Any] = config.targets or {}
    for name in given:
        if name not in agents:
            raise DataError(
                f"targets names {name!r}, which is no agent; there are: {', '.join(agents)}"
            )
    first = rows[0] if len(rows) else {}
    inputs = system.plan.graph.inputs
    own = {name for name in agents if name in first and name not in inputs}
    return {n: str(given.get(n, n if n in own else config.answer_field)) for n in agents}
