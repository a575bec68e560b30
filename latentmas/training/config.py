"""Arguments of the loops: `transformers.TrainingArguments` plus a few fields."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Self

from transformers import TrainingArguments

from latentmas.errors import unexpected_keyword

__all__ = ["EdgeConfig", "InnerConfig", "LinkConfig", "OuterConfig", "RolloutConfig"]

SAVE_STEPS = 0.2
"""Share of all steps between two checkpoints."""


@dataclass
class LinkConfig(TrainingArguments):
    """What all loops set differently from transformers."""

    columns: dict[str, str] | None = field(
        default=None,
        metadata={"help": "Name wanted → name in the data, for fields that are called otherwise."},
    )
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "Most positions of a prompt with what follows; longer rows are left out "
            "and counted. Without it, the backbones' own bounds hold."
        },
    )
    telemetry: bool = field(
        default=True,
        metadata={"help": "Log norms of gradients, weights and messages beside the loss."},
    )
    rollout_rows: int = field(
        default=64,
        metadata={
            "help": "Maximum number of held-out rows that are rolled out in an evaluation, to see "
            "whether latents still say the right words; 0 for none."
        },
    )
    answer_field: str = field(
        default="answer", metadata={"help": "Field of a row that holds the output agent's answer."}
    )
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Rows of a batch."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Rows of a batch."})
    progress: bool = field(
        default=True,
        metadata={
            "help": "Show step, loss, target tokens per second and time left on stderr: a bar on a "
            "terminal, elsewhere a line every 15 seconds at most. False: nothing is shown."
        },
    )
    warmup_steps: float = field(
        default=0.05,
        metadata={
            "help": "Steps in which the rate rises from 0; below 1, a share of all steps. The "
            "default is 5 to 10 steps of 100 to 200: Adam's first steps have full size whatever "
            "the gradient is, and would undo a good start."
        },
    )
    max_grad_norm: float = field(
        default=1.0,
        metadata={
            "help": "Norm to which gradients are clipped. Gradients of a regression stay below 1 "
            "once it has begun, so that this bounds single bad batches."
        },
    )
    weight_decay: float = field(
        default=0.0,
        metadata={
            "help": "Weight decay of AdamW. None: a link is small, and decay would pull it away "
            "from its start, which is close to where it works."
        },
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the rate."})
    adam_beta2: float = field(default=0.95, metadata={"help": "As the published trainer."})
    report_to: Any = field(default="none", metadata={"help": "Trackers; none by default."})
    save_strategy: str = field(
        default="steps",
        metadata={"help": "When to write checkpoints, which hold links and never a backbone."},
    )
    save_steps: float = field(
        default=SAVE_STEPS,
        metadata={
            "help": "Steps between checkpoints; below 1, a share of all steps. The default makes "
            "five. With load_best_model_at_end, the default follows the evaluations."
        },
    )
    save_total_limit: int | None = field(
        default=2,
        metadata={"help": "Checkpoints that are kept: the newest, and the best. None keeps all."},
    )
    logging_steps: float = field(default=10, metadata={"help": "Steps between log entries."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Rows stay whole."})
    dataloader_pin_memory: bool = field(default=False, metadata={"help": "Rows are text."})
    ddp_find_unused_parameters: bool | None = field(
        default=True, metadata={"help": "A round or an agent may leave a link out."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "A loss that is not finite ends the training instead."}
    )
    disable_tqdm: bool | None = field(
        default=True, metadata={"help": "No bar of transformers' own; see `progress`."}
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
            "called like it where rows have one, else `answer_field`."
        },
    )
    cosine_weight: float = field(default=1.0, metadata={"help": "Weight of 1 - cosine."})
    mse_weight: float = field(default=0.0, metadata={"help": "Weight of the squared error."})
    feature_gib: float = field(
        default=4.0, metadata={"help": "Most GiB of states that are kept for later epochs."}
    )
    learning_rate: float = field(default=5e-4, metadata={"help": "Peak rate of AdamW."})


@dataclass
class EdgeConfig(LinkConfig):
    """Arguments of the edge loop: messages learn to be what the receiver would have read.

    Every field of `transformers.TrainingArguments` is one too.
    """

    targets: dict[str, str] | str | None = field(
        default=None,
        metadata={
            "help": "Field with each agent's own text, as in the inner loop. None: the team's "
            "text twin speaks, and no texts are needed."
        },
    )
    train_links: list[str] | str = field(
        default="outer",
        metadata={"help": "outer, inner, all, or a list of link ids. The others are frozen."},
    )
    cosine_weight: float = field(default=1.0, metadata={"help": "Weight of 1 - cosine."})
    mse_weight: float = field(default=1.0, metadata={"help": "Weight of the squared error."})
    feature_gib: float = field(
        default=4.0, metadata={"help": "Most GiB of states that are kept for later epochs."}
    )
    learning_rate: float = field(default=3e-3, metadata={"help": "Peak rate of AdamW."})


@dataclass
class RolloutConfig(LinkConfig):
    """Arguments of the rollout loop: links learn on the states that they bring about themselves.

    Every field of `transformers.TrainingArguments` is one too.
    """

    targets: dict[str, str] | str | None = field(
        default=None,
        metadata={
            "help": "Field with each agent's own text, as in the inner loop. None: the team's "
            "text twin speaks, and no texts are needed."
        },
    )
    train_links: list[str] | str = field(
        default="all",
        metadata={"help": "outer, inner, all, or a list of link ids. The others are frozen."},
    )
    passes: int = field(
        default=4,
        metadata={
            "help": "Parallel passes over the links' own outputs, after the teacher-forced pass. "
            "Training begins with one and adds one after each of as many equal parts. K - 1 "
            "passes equal a rollout of K steps, and more are never run."
        },
    )
    pass_weights: list[float] | None = field(
        default=None,
        metadata={
            "help": "Weights of the teacher-forced pass and of each pass after it: passes + 1 "
            "positive numbers. None: all equal."
        },
    )
    gradient: bool = field(
        default=True,
        metadata={
            "help": "Gradients flow through the frozen backbone into earlier passes. False: each "
            "pass is learnt from by itself, which is cheaper and helps much less."
        },
    )
    mix: float = field(
        default=0.0,
        metadata={"help": "Probability that a position reads a word in place of a link's output."},
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
            "help": "text: links learn the embeddings of the words. soft_token: the mean embedding "
            "under the backbone's own distribution over the next word, given the words so far."
        },
    )
    teacher_temperature: float = field(
        default=0.5, metadata={"help": "For soft_token: temperature of that distribution."}
    )
    cosine_weight: float = field(default=1.0, metadata={"help": "Weight of 1 - cosine."})
    mse_weight: float = field(default=1.0, metadata={"help": "Weight of the squared error."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak rate of AdamW."})
    warmup_steps: float = field(default=10, metadata={"help": "Steps of linear warm-up."})
    # On SmolLM2 norms are 1 to 2: ordinary steps stay whole, and a chain that runs away is caught.
    max_grad_norm: float = field(default=5.0, metadata={"help": "Norm that gradients are cut to."})


@dataclass
class OuterConfig(LinkConfig):
    """Arguments of the outer loop: cross-entropy through the unrolled recursion, on-policy.

    Every field of `transformers.TrainingArguments` is one too.
    """

    recipe: str = field(
        default="on_policy",
        metadata={
            "help": "on_policy: messages from rollouts, as at run time. released: the "
            "published procedure, from gold texts, which leaks the answer into later rounds."
        },
    )
    targets: dict[str, str] | str | None = field(
        default=None,
        metadata={"help": "For released: field with each agent's own text, as in the inner loop."},
    )
    rounds: int | list[int] | None = field(
        default=None,
        metadata={
            "help": "Rounds to train through; a list is a curriculum in equal parts; None "
            "takes the plan's."
        },
    )
    latent_steps: int | None = field(
        default=None, metadata={"help": "Latent steps to train with; None takes the plan's."}
    )
    train_links: list[str] | str = field(
        default="outer",
        metadata={"help": "outer, inner, all, or a list of link ids. The others are frozen."},
    )
    round_weights: list[float] | None = field(
        default=None,
        metadata={"help": "Weight of the answer's loss after each round; None: the last alone."},
    )
    eval_exact_match: bool = field(
        default=True, metadata={"help": "Evaluation also decodes and compares answers."}
    )
    eval_max_new_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Maximum tokens for every agent that writes in an evaluation. None: the "
            "agents' own limits, else 256."
        },
    )
    executor: str = field(default="cached", metadata={"help": "How rollouts run."})
    checkpoint: str = field(
        default="auto",
        metadata={
            "help": "rollout: compute activations again in the backward pass. none: keep "
            "them. auto: keep them if half of the free memory holds them."
        },
    )
    feature_gib: float = field(
        default=4.0,
        metadata={
            "help": "Most GiB of states of rollouts that nothing trainable precedes, which are "
            "computed once for each row; 0 keeps none."
        },
    )
    probe_stability: bool = field(
        default=True,
        metadata={"help": "Before the first step, measure how perturbations grow, and warn."},
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Evaluations without improvement after which training ends."},
    )
    learning_rate: float = field(
        default=3e-4,
        metadata={
            "help": "Peak rate of AdamW. 3e-4 to 1e-3 were stable on real models from links that "
            "work (soft_token, or trained by other loops); a team that is nearly right takes less."
        },
    )
    max_grad_norm: float = field(
        default=10.0,
        metadata={
            "help": "Norm to which gradients are clipped. Through rollouts, norms of 5 to 20 are "
            "usual; a bound of 1 would clip every step and hide which batches are unusual."
        },
    )
