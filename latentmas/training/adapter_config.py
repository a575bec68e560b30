"""Arguments of loops in which adapters of single agents can learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from latentmas.spec import LoRA

__all__ = ["AdapterArguments"]


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
        found = self.train_adapters
        if isinstance(found, Mapping):
            found = {str(name): _plain(value) for name, value in found.items()}
        self.train_adapters = _plain(found)
        super().__post_init__()  # type: ignore[misc]  # that of transformers' arguments


def _plain(value: Any) -> Any:
    if isinstance(value, LoRA):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple | set) else value
