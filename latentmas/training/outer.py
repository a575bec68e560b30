"""The outer loop: links learn from the final answer, through the unrolled recursion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from latentmas.engine import executors
from latentmas.errors import LatentMASError
from latentmas.evaluation import accuracy
from latentmas.plan import Plan
from latentmas.redact import get_logger
from latentmas.runtime import System
from latentmas.training.config import OuterConfig
from latentmas.training.data import Data, Reading, Row, TrainingRows, drop_long_rows, read_rows
from latentmas.training.losses.outer import OuterLoss
from latentmas.training.memory.estimate import DryRun, Estimate, available_bytes, dry_run, estimate
from latentmas.training.monitoring.telemetry import stability
from latentmas.training.select import (
    check_adapters_reach,
    check_reach,
    choose_adapters,
    choose_links,
    freeze_all_but,
)
from latentmas.training.speech import Speech
from latentmas.training.targets import find_targets
from latentmas.training.trainer.mesh import check_same_training
from latentmas.training.trainer.trainer import LinkTrainer, check_parts

__all__ = ["OuterTrainer"]

log = get_logger("latentmas.training")

UNSTABLE = 2.0
"""Growth of a perturbation per latent step from which on training warns."""
PROBE_ROWS = 4


class OuterTrainer(LinkTrainer):
    """Cross-entropy of the output agent's answer, with exact gradients through all rounds.

    `left_out` holds the numbers of rows that are longer than the agents can read.

    An evaluation also rolls out for real, with the rounds and latent steps of the plan: whether
    messages say what the rows' texts, or else the text twin, say. This loop may lead them away from
    it, as only the answer counts; `rollout_rows=0` leaves it out.

    Example:
        `lm.OuterTrainer(system, lm.OuterConfig("out/outer", rounds=3), train_dataset=rows).train()`
    """

    args: OuterConfig
    """Arguments of the training."""
    loop = "outer"
    """Name of the loop."""

    def __init__(
        self,
        system: System,
        config: OuterConfig | None = None,
        *,
        train_dataset: Data,
        eval_dataset: Data | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
    ) -> None:
        """Check data and reach, and prepare.

        Args:
            system: System whose links are trained.
            config: Arguments; `train_links` selects the links to train, and `train_adapters` gives
                agents LoRA adapters of their own.
            train_dataset: Sequence of mappings, or a JSONL file, with the graph's inputs and the
                answer.
            eval_dataset: Held-out rows of the same form.
            callbacks: Callbacks of `transformers`.

        Raises:
            DataError: A row lacks a field.
            GraphError: LM401 for a link or adapter that the loss cannot reach; LM113 for a depth
                out of range.
            LatentMASError: an argument has no such value, or LM402, nothing is left to train.
            UnknownNameError: `train_links` names no link, or `train_adapters` no agent.
            WeightsError: An adapter's target module does not exist, or peft is not installed.
        """
        config = config or OuterConfig(output_dir="out/outer")
        check_parts(system, config, OuterConfig)
        _check_choices(config)
        self.depths = _depths(system, config)
        """Plans to train at, in order."""
        plan = self.depths[-1]
        there = {agent: one.lora for agent, one in system.agent_adapters().items()}
        adapters = choose_adapters(plan, config.train_adapters, there)
        chosen = choose_links(plan, config.train_links, optional=bool(adapters))
        check_reach(plan, chosen)
        check_adapters_reach(plan, adapters)
        rows = read_rows(train_dataset, config.columns)
        held_out = None if eval_dataset is None else read_rows(eval_dataset, config.columns)
        fields = [*plan.graph.inputs, config.answer_field]
        targets = {}
        if config.recipe == "released":
            targets = find_targets(system, config.targets, config.answer_field, rows)
            fields += targets.values()
        rows.check(fields, "train_dataset")
        if held_out is not None:
            held_out.check(fields, "eval_dataset")
        reading = Reading(own={plan.output: config.answer_field} | targets)
        rows, self.left_out = drop_long_rows(system, plan, rows, reading, config.max_length)
        self._twin: Speech | None = None
        for agent, lora in adapters.items():
            system.add_adapter(agent, lora, seed=config.seed)
        freeze_all_but(system, [link.id for link in chosen], adapters)
        check_same_training(system, config, rows, held_out)  # the estimate looks up embeddings
        first = [row for _, row in rows[: config.per_device_train_batch_size]]
        self.estimate: Estimate = estimate(system, plan, first, config.answer_field)
        """Estimated memory of a step."""
        self.checkpoint = _checkpoints(config.checkpoint, system, self.estimate)
        """Whether activations are computed again in the backward pass."""
        loss = OuterLoss(
            system,
            plan,
            answer_field=config.answer_field,
            round_weights=config.round_weights,
            executor=config.executor,
            checkpoint=self.checkpoint,
            recipe=config.recipe,
            targets=targets,
            rows=rows,
            keep_bytes=int(config.feature_gib * 2**30),
            once=_reads_once(config, len(rows)),
        )
        own: list[TrainerCallback] = []
        if len(self.depths) > 1:
            own.append(_Curriculum(loss, self.depths))
        if config.early_stopping_patience is not None:
            own.append(EarlyStoppingCallback(config.early_stopping_patience))
        super().__init__(
            system,
            loss,
            config,
            train_dataset=rows,
            eval_dataset=held_out,
            callbacks=[*own, *(callbacks or [])],
        )

    def train(  # type: ignore[override]  # the other arguments pass through
        self, resume_from_checkpoint: bool | str | None = None, **options: Any
    ) -> Any:
        """Train, after a look at how stable the rollouts are."""
        if self.args.probe_stability and self.args.recipe == "on_policy":
            self._probe()
        return super().train(resume_from_checkpoint, **options)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As transformers', with groups of their own for adapters, at their own learning rate."""
        optimizer = super().create_optimizer(model)
        own = {id(p) for p in self.system.adapters.parameters()}
        for group in [*optimizer.param_groups] if own else []:
            adapters = [p for p in group["params"] if id(p) in own]
            if adapters:
                group["params"] = [p for p in group["params"] if id(p) not in own]
                rate = {"lr": self.args.adapter_learning_rate, "params": adapters}
                optimizer.add_param_group({**group, **rate})
        return optimizer

    def dry_run(self) -> DryRun:
        """One forward and backward pass on the first batch, measured beside the estimate."""
        loss: Any = self.model
        return dry_run(loss, self.system, self._first_rows(), checkpoint=self.checkpoint)

    def _first_rows(self) -> list[Any]:
        rows: Any = self.train_dataset
        return [row for _, row in rows[: self.args.per_device_train_batch_size]]

    def _probe(self) -> None:
        growth = stability(self.system, self._first_rows()[:PROBE_ROWS], self.depths[-1])
        wild = {name: factor for name, factor in growth.items() if not factor < UNSTABLE}
        if wild:
            name = max(wild, key=lambda name: wild[name])
            log.warning(
                "differences grow %.1f-fold with each latent step of %s: gradients will be large "
                "and uneven; train the inner loop first, or with fewer latent steps",
                wild[name],
                name,
            )

    def _begin_watching(self) -> None:
        module: Any = self.accelerator.unwrap_model(self.model)
        assert self.telemetry is not None
        self.telemetry.begin(module.plan)
        module.watch, module.round_losses = self.telemetry.message, {}

    def _end_watching(self) -> None:
        super()._end_watching()
        module: Any = self.accelerator.unwrap_model(self.model)
        assert self.telemetry is not None
        found = module.round_losses or {}
        self.telemetry.numbers |= {f"loss/round{n}": value for n, value in sorted(found.items())}
        module.watch = module.round_losses = None

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss at the last depth, and exact match of decoded answers as `eval_exact_match`."""
        module: Any = self.accelerator.unwrap_model(self.model)
        module.set_plan(self.depths[-1], self.args.round_weights)  # a curriculum sets its own again
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def held_out_metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """As all loops, and exact match of decoded answers where `eval_exact_match` wants it."""
        found = super().held_out_metrics(rows)
        if not self.args.eval_exact_match:
            return found
        result = self.system.run(
            rows,
            rounds=self.depths[-1].graph.rounds,
            latent_steps=self.args.latent_steps,
            max_new_tokens=self.args.eval_max_new_tokens,
            batch_size=self.args.per_device_eval_batch_size,
        )
        answers = [str(row[self.args.answer_field]) for row in rows]
        return found | {"exact_match": accuracy(result.texts, answers)}

    def speech(self, rows: Sequence[Row]) -> Speech:
        """Texts that the rows have for every sender, else the text twin's own."""
        plan, args = self.system.plan, self.args
        targets = find_targets(self.system, args.targets, args.answer_field, TrainingRows(rows))
        needed = {edge.source for edge in plan.graph.edges if edge.source in targets}
        own = {targets[name] for name in needed - {plan.output}}
        fields = {targets[name] for name in needed}
        given = all(row.get(field) is not None for field in fields for row in rows)
        if args.answer_field not in own and given:
            return Speech(self.system, {name: targets[name] for name in needed})
        if self._twin is None:
            self._twin = Speech(self.system)
        return self._twin


class _Curriculum(TrainerCallback):
    """Trains at one depth after another, for equal parts of the steps."""

    def __init__(self, loss: OuterLoss, depths: Sequence[Plan]) -> None:
        self.loss, self.depths = loss, list(depths)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Choose the depth by the step alone, so that a resumed run goes on alike."""
        part = state.global_step * len(self.depths) // max(1, state.max_steps)
        plan = self.depths[min(part, len(self.depths) - 1)]
        if plan is not self.loss.plan:
            self.loss.set_plan(plan)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the loss at the last depth."""
        self.loss.set_plan(self.depths[-1])


def _depths(system: System, config: OuterConfig) -> list[Plan]:
    """Plans to train at, the last of them the depth that is evaluated."""
    rounds = config.rounds if isinstance(config.rounds, list) else [config.rounds]
    if not rounds:
        raise LatentMASError("rounds is an empty list; give a number, or some")
    if len(rounds) > 1 and config.round_weights is not None:
        raise LatentMASError("round_weights goes with one number of rounds, not with a curriculum")
    return [system.plan.replace(rounds=n, latent_steps=config.latent_steps) for n in rounds]


def _check_choices(config: OuterConfig) -> None:
    choices = {"recipe": ("on_policy", "released"), "checkpoint": ("auto", "none", "rollout")}
    for name, allowed in choices.items():
        found = getattr(config, name)
        if found not in allowed:
            raise LatentMASError(f"{name} is {found!r}; choose from {', '.join(allowed)}")
    if not executors.get(config.executor).learns:
        able = ", ".join(name for name in executors.names() if executors.get(name).learns)
        raise LatentMASError(
            f"executor is {config.executor!r}, through which no gradient passes; choose from {able}"
        )


def _reads_once(config: OuterConfig, rows: int) -> bool:
    """Whether a training takes no row twice."""
    if config.max_steps <= 0:
        return config.num_train_epochs <= 1
    batch = config.train_batch_size * config.gradient_accumulation_steps * config.world_size
    return bool(config.max_steps * batch <= rows)


def _checkpoints(wanted: str, system: System, guess: Estimate) -> bool:
    if wanted != "auto":
        return wanted == "rollout"
    device = next(iter(system.agent_backbones.values())).device
    return guess.activations > available_bytes(device) / 2
