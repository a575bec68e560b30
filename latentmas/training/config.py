"""Arguments of the loops: `transformers.TrainingArguments` plus a few fields."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Self

from transformers import TrainingArguments

from latentmas.errors import unexpected_keyword
from latentmas.training.adapter_config import AdapterArguments

__all__ = ["EdgeConfig", "InnerConfig", "LinkConfig", "OuterConfig", "RolloutConfig"]

SAVE_STEPS = 0.2
"""Share of all steps between two checkpoints."""


@dataclass
class LinkConfig(TrainingArguments):
    """What all loops set differently from transformers."""

    columns: dict[str, str] | None = field(
        default=None,
        metadata={
            "help": "Column of the data for each field that has another name there: field → column."
        },
    )
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "Maximum number of positions of a prompt and its text; longer rows are left "
            "out and counted. Default: the backbones' own limits."
        },
    )
    telemetry: bool = field(
        default=True,
        metadata={"help": "Log norms of gradients, weights and messages along with the loss."},
    )
    rollout_rows: int = field(
        default=64,
        metadata={
            "help": "Maximum number of held-out rows that are rolled out in an evaluation, to see "
            "whether latents still say the right words; 0 for none."
        },
    )
    answer_field: str = field(
        default="answer", metadata={"help": "Field that holds the output agent's answer."}
    )
    per_device_train_batch_size: int = field(
        default=16, metadata={"help": "Number of rows per batch."}
    )
    per_device_eval_batch_size: int = field(
        default=64, metadata={"help": "Number of rows per batch in evaluation."}
    )
    progress: bool = field(
        default=True,
        metadata={
            "help": "Progress on stderr (step, loss, target tokens per second, time left): a bar "
            "on a terminal, elsewhere at most one line every 15 seconds. False: none."
        },
    )
    warmup_steps: float = field(
        default=0.05,
        metadata={
            "help": "Number of warm-up steps, in which the learning rate rises from 0; below 1, a "
            "share of all steps. The default is 5 to 10 of 100 to 200 steps: the first "
            "steps of Adam have full size whatever the gradient is, and would undo a good "
            "start."
        },
    )
    max_grad_norm: float = field(
        default=1.0,
        metadata={
            "help": "Maximum gradient norm. Gradients of a regression soon stay below 1, so that "
            "this limits single bad batches."
        },
    )
    weight_decay: float = field(
        default=0.0,
        metadata={
            "help": "Weight decay of AdamW. Off by default: a link is small, and decay would pull "
            "it away from its start, which is close to where it works."
        },
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule."})
    adam_beta2: float = field(
        default=0.95, metadata={"help": "Second beta of AdamW, as in the published trainer."}
    )
    report_to: Any = field(default="none", metadata={"help": "Experiment trackers to report to."})
    save_strategy: str = field(
        default="steps",
        metadata={"help": "Checkpoint strategy; checkpoints contain links, never a backbone."},
    )
    save_steps: float = field(
        default=SAVE_STEPS,
        metadata={
            "help": "Number of steps between checkpoints; below 1, a share of all steps. The "
            "default makes five; with load_best_model_at_end, it follows the evaluations."
        },
    )
    save_total_limit: int | None = field(
        default=2,
        metadata={
            "help": "Number of checkpoints to keep: the newest and the best. None keeps all."
        },
    )
    logging_steps: float = field(
        default=10, metadata={"help": "Number of steps between log entries."}
    )
    remove_unused_columns: bool = field(
        default=False,
        metadata={"help": "Drop columns that the model does not take; rows stay whole here."},
    )
    dataloader_pin_memory: bool = field(
        default=False,
        metadata={"help": "Pin memory in the data loader; of no use for rows of text."},
    )
    ddp_find_unused_parameters: bool | None = field(
        default=True,
        metadata={"help": "Search for unused links under DDP: a round or agent may skip one."},
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={"help": "Hide non-finite losses in the log; here they end the training."},
    )
    disable_tqdm: bool | None = field(
        default=True, metadata={"help": "Disable the progress bar of transformers; see `progress`."}
    )

    def __new__(cls, *_: Any, **given: Any) -> Self:
        """Refuse misspelt arguments before the generated `__init__`, which names no other."""
        known = [one.name for one in fields(cls) if one.init]
        for name in given:
            if name not in known:
                raise unexpected_keyword(cls.__name__, name, known)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Refuse what transformers would take for something else, or cannot do here."""
        if self.max_steps == 0 or self.max_steps < -1:
            raise ValueError(
                f"max_steps takes 1 or more, or -1 for num_train_epochs; found {self.max_steps}"
            )
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} takes 1 or more; found {getattr(self, name)}")
        if self.gradient_checkpointing:
            raise ValueError(
                "gradient_checkpointing is transformers' own, inside a model; to save memory here, "
                'give OuterConfig checkpoint="rollout"'
            )
        patience = getattr(self, "early_stopping_patience", None)
        if patience is not None and self.metric_for_best_model is None:
            raise ValueError(
                "early_stopping_patience needs metric_for_best_model, such as 'eval_loss', with "
                "eval_strategy='steps' and load_best_model_at_end=True"
            )
        if self.load_best_model_at_end and self.save_steps == SAVE_STEPS:
            self.save_strategy = self.eval_strategy
            self.save_steps = self.logging_steps if self.eval_steps is None else self.eval_steps
        super().__post_init__()

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Whole steps of a share, rounded down: the first of them has a rate of 0.

        One of few steps would be lost; a training of one step would learn nothing.
        """
        if self.warmup_steps >= 1:
            return int(self.warmup_steps)
        return int(num_training_steps * self.warmup_steps)

    @property
    def place_model_on_device(self) -> bool:
        """False: the system has placed its links beside its backbones."""
        return False


@dataclass
class InnerConfig(LinkConfig):
    """Arguments of the inner loop (RecursiveMAS, arXiv 2604.25917).

    Every field of `transformers.TrainingArguments` is one too.
    """

    targets: dict[str, str] | str | None = field(
        default=None,
        metadata={
            "help": "Field with each agent's own text, by agent. An agent left out uses the field "
            "of its own name if rows have one, else `answer_field`."
        },
    )
    cosine_weight: float = field(
        default=1.0, metadata={"help": "Weight of the cosine loss, 1 - cosine."}
    )
    mse_weight: float = field(default=0.0, metadata={"help": "Weight of the mean squared error."})
    feature_gib: float = field(
        default=4.0, metadata={"help": "Maximum size of states kept for later epochs, in GiB."}
    )
    learning_rate: float = field(default=5e-4, metadata={"help": "Peak learning rate of AdamW."})


@dataclass
class EdgeConfig(LinkConfig):
    """Arguments of the edge loop: messages learn to be what the receiver would have read.

    Every field of `transformers.TrainingArguments` is one too.
    """

    targets: dict[str, str] | str | None = field(
        default=None,
        metadata={
            "help": "Field with each agent's own text, by agent, as in the inner loop. None: the "
            "text twin writes the texts, and the data needs none."
        },
    )
    train_links: list[str] | str = field(
        default="outer",
        metadata={"help": "Links to train: outer, inner, all, or a list of link ids."},
    )
    cosine_weight: float = field(
        default=1.0, metadata={"help": "Weight of the cosine loss, 1 - cosine."}
    )
    mse_weight: float = field(default=1.0, metadata={"help": "Weight of the mean squared error."})
    feature_gib: float = field(
        default=4.0, metadata={"help": "Maximum size of states kept for later epochs, in GiB."}
    )
    learning_rate: float = field(default=3e-3, metadata={"help": "Peak learning rate of AdamW."})


@dataclass
class RolloutConfig(LinkConfig):
    """Arguments of the rollout loop: links learn on the states that they bring about themselves.

    Every field of `transformers.TrainingArguments` is one too.
    """

    targets: dict[str, str] | str | None = field(
        default=None,
        metadata={
            "help": "Field with each agent's own text, by agent, as in the inner loop. None: the "
            "text twin writes the texts, and the data needs none."
        },
    )
    train_links: list[str] | str = field(
        default="all",
        metadata={"help": "Links to train: outer, inner, all, or a list of link ids."},
    )
    passes: int = field(
        default=4,
        metadata={
            "help": "Maximum number of parallel passes over the links' own outputs, after the "
            "teacher-forced pass. Training starts with one pass and adds more in equal "
            "parts. K - 1 passes equal a rollout of K steps, and more are never run."
        },
    )
    pass_weights: list[float] | None = field(
        default=None,
        metadata={
            "help": "Loss weights of the teacher-forced pass and of each pass after it: passes + 1 "
            "positive numbers. None: all equal."
        },
    )
    gradient: bool = field(
        default=True,
        metadata={
            "help": "Gradient flow through the frozen backbone into earlier passes. False: each "
            "pass is trained by itself, which is cheaper and helps much less."
        },
    )
    refresh_steps: int | None = field(
        default=None,
        metadata={
            "help": "Number of steps between rollouts whose kept states the links learn from, "
            "without gradients through a backbone. None: parallel passes with gradients."
        },
    )
    feature_gib: float = field(
        default=4.0,
        metadata={
            "help": "Maximum size of kept states, keys and values for refresh_steps, in GiB; the "
            "rest is computed again."
        },
    )
    mix: float = field(
        default=0.0,
        metadata={"help": "Probability that a position reads a word instead of a link's output."},
    )
    row_clip: float | None = field(
        default=None,
        metadata={
            "help": "Maximum norm of the gradient that a row's summed loss sends from one pass "
            "into the one before. None: no limit."
        },
    )
    teacher: str = field(
        default="text",
        metadata={
            "help": "Regression target. text: the embeddings of the words. soft_token: the mean "
            "embedding under the backbone's own distribution over the next word."
        },
    )
    teacher_temperature: float = field(
        default=0.5, metadata={"help": "Temperature of that distribution, for soft_token."}
    )
    cosine_weight: float = field(
        default=1.0, metadata={"help": "Weight of the cosine loss, 1 - cosine."}
    )
    mse_weight: float = field(default=1.0, metadata={"help": "Weight of the mean squared error."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of AdamW."})
    warmup_steps: float = field(default=10, metadata={"help": "Number of linear warm-up steps."})
    # On SmolLM2 norms are 1 to 2: ordinary steps stay whole, and a chain that runs away is caught.
    max_grad_norm: float = field(default=5.0, metadata={"help": "Maximum gradient norm."})


@dataclass
class OuterConfig(AdapterArguments, LinkConfig):
    """Arguments of the outer loop: cross-entropy through the unrolled recursion, on-policy.

    Every field of `transformers.TrainingArguments` is one too.
    """

    recipe: str = field(
        default="on_policy",
        metadata={
            "help": "Training recipe. on_policy: messages from rollouts, as at run time. released: "
            "the published procedure, from gold texts, which leaks the answer into later "
            "rounds."
        },
    )
    targets: dict[str, str] | str | None = field(
        default=None,
        metadata={"help": "Field with each agent's own text, by agent; for the recipe released."},
    )
    rounds: int | list[int] | None = field(
        default=None,
        metadata={
            "help": "Number of rounds to train through; a list is a curriculum in equal parts. "
            "None: the plan's."
        },
    )
    latent_steps: int | None = field(
        default=None, metadata={"help": "Number of latent steps to train with. None: the plan's."}
    )
    train_links: list[str] | str | bool = field(
        default="outer",
        metadata={"help": "Links to train: outer, inner, all, or a list of ids; False: none."},
    )
    round_weights: list[float] | None = field(
        default=None,
        metadata={"help": "Loss weight of the answer after each round. None: the last alone."},
    )
    eval_exact_match: bool = field(
        default=True, metadata={"help": "Decode answers in evaluation, and report exact match."}
    )
    eval_max_new_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Maximum number of new tokens for every agent that writes in an evaluation. "
            "None: the agents' own limits, else 256."
        },
    )
    executor: str = field(default="cached", metadata={"help": "Executor of the rollouts."})
    checkpoint: str = field(
        default="auto",
        metadata={
            "help": "Activation checkpointing. rollout: recompute activations for the gradient. "
            "none: keep them. auto: keep them if they fit into half of the free memory."
        },
    )
    feature_gib: float = field(
        default=4.0,
        metadata={"help": "Maximum size of constant rollout states kept, in GiB; 0 keeps none."},
    )
    probe_stability: bool = field(
        default=True,
        metadata={"help": "Measure before the first step how perturbations grow, and warn."},
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Number of evaluations without improvement after which training ends."},
    )
    learning_rate: float = field(
        default=3e-4,
        metadata={
            "help": "Peak learning rate of AdamW. 3e-4 to 1e-3 were stable on real models when "
            "training started from working links (soft_token, or trained by other loops); "
            "a nearly right team needs less."
        },
    )
    max_grad_norm: float = field(
        default=10.0,
        metadata={
            "help": "Maximum gradient norm. Norms of 5 to 20 are usual through rollouts; a limit "
            "of 1 would clip every step and hide unusual batches."
        },
    )
