"""Full fine-tuning of the output agent's model, with TRL."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import PrinterCallback

from latentmas.atomic import check_writable
from latentmas.backbones import LoadedBackbone
from latentmas.errors import LatentMASError
from latentmas.plan import Plan
from latentmas.runtime import System
from latentmas.spec import Backbone, Graph
from latentmas.studies.baselines import Baseline, BaselineJob, MadeBaseline, baselines, load_alone
from latentmas.studies.baselines._prompt import single_agent
from latentmas.studies.baselines._training import effort_of, single_texts
from latentmas.studies.baselines.single import SingleOptions

__all__ = ["SFT", "SFTOptions"]

RATE = 1e-5
"""Default peak learning rate."""


class SFTOptions(SingleOptions):
    """Options of full fine-tuning."""

    max_grad_norm: float = 1.0
    """Maximum gradient norm."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass, which takes less memory and more time."""


@baselines.register("sft")
class SFT(Baseline):
    """The single agent with all weights trained on the answers.

    TRL's `SFTTrainer` trains a copy in float32 on the token ids that the agent reads and writes at
    run time; the loss is that of the answer. The result is a folder, `model`, which is a backbone.
    """

    summary = "the single agent with all of its model's weights trained (TRL)"
    trains = True
    packages = MappingProxyType({"trl": "baselines", "datasets": "baselines"})
    Options = SFTOptions

    def graph(self, plan: Plan) -> Graph:
        """One agent without edges, before training."""
        asked = self.options
        return single_agent(
            plan, prompt=asked.prompt, system=asked.system, max_new_tokens=asked.max_new_tokens
        )

    def problems(self, plan: Plan) -> Iterator[str]:
        """Besides missing packages: weights that cannot be trained."""
        yield from super().problems(plan)
        spec = plan.graph
        model = spec.backbones[spec.agent(plan.output).backbone]
        for field in ("quantization", "adapter"):
            if getattr(model, field) is not None:
                yield (
                    f"baseline 'sft' trains all weights, and backbone {model.source!r} is declared "
                    f"with {field}; declare it without, or use the baseline 'lora'"
                )

    def make(self, job: BaselineJob) -> MadeBaseline:
        """Fine-tune, or continue, and load the result as a backbone."""
        before = load_alone(job.team, self.graph(job.team.plan))
        agent = before.plan.output
        backbone, folder = before.backbone_of(agent), job.folder / "model"
        if not folder.exists():
            self._tune(job, before, folder)
        spec = backbone.planned.spec
        tuned = Backbone(
            str(folder),
            dtype=str(backbone.dtype).removeprefix("torch."),
            family=spec.family,
            attention=spec.attention,
            trust_remote_code=spec.trust_remote_code,
        )
        key = before.plan.graph.agent(agent).backbone
        graph = Graph.from_spec(before.plan.graph.replace(backbones={key: tuned.model_dump()}))
        system = load_alone(job.team, graph)
        trained = sum(w.numel() for w in system.backbone_of(agent).model.parameters())
        return MadeBaseline(system, effort_of(job, system, trained))

    def _tune(self, job: BaselineJob, before: System, folder: Path) -> None:
        backbone = before.backbone_of(before.plan.output)
        model, work = _trainable_copy(backbone), job.folder / "training"
        trainer = self._trainer(job, before, model, work)
        trainer.train(resume_from_checkpoint=any(work.glob("checkpoint-*")) or None)
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        check_writable(part / "config.json")
        model.to(backbone.dtype).save_pretrained(part)
        backbone.tokenizer.save_pretrained(part)
        part.rename(folder)
        shutil.rmtree(work, ignore_errors=True)  # checkpoints of whole models

    def _trainer(self, job: BaselineJob, before: System, model: Any, work: Path) -> Any:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        budget, asked = job.budget, self.options
        backbone = before.backbone_of(before.plan.output)
        texts = single_texts(before, job.train_rows, job.answer_field)
        rows = {
            "input_ids": [prompt + answer for prompt, answer in texts],
            "completion_mask": [[0] * len(p) + [1] * len(a) for p, a in texts],
        }
        config = SFTConfig(
            output_dir=str(work),
            max_steps=budget.max_steps,
            per_device_train_batch_size=budget.batch_size,
            learning_rate=RATE if budget.learning_rate is None else budget.learning_rate,
            warmup_steps=int(0.05 * budget.max_steps),
            lr_scheduler_type="cosine",
            adam_beta2=0.95,
            weight_decay=0.0,
            max_grad_norm=asked.max_grad_norm,
            **{_checkpointing(SFTConfig): asked.activation_checkpointing},
            completion_only_loss=True,
            max_length=None,
            bf16=False,
            seed=job.seed,
            save_strategy="steps",
            save_steps=0.2,
            save_total_limit=1,
            logging_steps=10,
            report_to="none",
            disable_tqdm=not job.progress,
            use_cpu=backbone.device.type == "cpu",
            dataloader_pin_memory=False,
        )
        with _quiet_data_sets():
            trainer = SFTTrainer(
                model=model,
                args=config,
                train_dataset=Dataset.from_dict(rows),
                processing_class=backbone.tokenizer,
            )
        trainer.remove_callback(PrinterCallback)  # stdout is for data
        return trainer


@contextmanager
def _quiet_data_sets() -> Iterator[None]:
    """Without the progress bars of datasets."""
    from datasets.utils.logging import (
        disable_progress_bar,
        enable_progress_bar,
        is_progress_bar_enabled,
    )

    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()


def _checkpointing(kind: Any) -> str:
    """Name of the argument in this version of transformers."""
    new = "activation_checkpointing"
    return new if new in kind.__dataclass_fields__ else "gradient_checkpointing"


def _trainable_copy(backbone: LoadedBackbone) -> Any:
    """A model with the same weights in float32, apart from those of the team.

    Raises:
        LatentMASError: The model's weights are quantised, or on several devices.
    """
    source = backbone.planned.spec.source
    if backbone.quantized or backbone.split is not None:
        how = "quantised" if backbone.quantized else "on several devices"
        raise LatentMASError(
            f"baseline 'sft' trains all weights, and those of {source!r} are {how}; load them whole"
        )
    found: Any = backbone.model
    with torch.random.fork_rng(devices=[]), torch.device(backbone.device):
        model: Any = type(found)(copy.deepcopy(found.config))
    model.load_state_dict(
        {name: t.float() if t.is_floating_point() else t for name, t in found.state_dict().items()}
    )
    return model.float().to(backbone.device)
