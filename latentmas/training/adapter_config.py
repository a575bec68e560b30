"""Arguments of loops in which adapters of single agents can learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from latentmas.spec import LoRA

__all__ = ["AdapterArguments", "plain_adapters"]


@dataclass
class AdapterArguments:
    """Arguments for LoRA adapters of agents' own, which learn together with the links."""

    train_adapters: Any = field(
        default=False,
        metadata={
            "help": "LoRA adapters to train. True: one for each agent. A list: one for each agent "
            "in it. A mapping: fields of LoRA for each agent, or the fields themselves for "
            "all agents. Needs the extra peft."
        },
    )
    adapter_learning_rate: float = field(
        default=2e-4,
        metadata={"help": "Peak learning rate of adapters; learning_rate is that of links."},
    )

    def __post_init__(self) -> None:
        """Store descriptions of adapters as plain data, as they are saved with the team."""
        self.train_adapters = plain_adapters(self.train_adapters)
        super().__post_init__()  # type: ignore[misc]  # that of transformers' arguments


def plain_adapters(value: Any) -> Any:
    """What `train_adapters` takes, as plain data."""
    if isinstance(value, LoRA):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(name): plain_adapters(own) for name, own in value.items()}
    return list(value) if isinstance(value, tuple | set) else value
