"""The interface of ways to put one backbone on several devices."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Split"]


class Split(Protocol):
    """A way to put a backbone on several devices: `Spread` or `TensorSplit`."""

    @property
    def key(self) -> str:
        """Text that is equal for equal placements."""
        ...

    @property
    def reason(self) -> str:
        """Why fixed buffers and moving backbones do not work."""
        ...

    def load(self, auto: Any, source: str, **options: Any) -> Any:
        """Load with `auto.from_pretrained`."""
        ...
