"""Ctrl-C in a training: the step is finished and a checkpoint is saved before it ends."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback

__all__ = ["Interruption"]

SAID = "stopping: the step is finished and a checkpoint saved; press Ctrl-C again to stop at once\n"


class Interruption(TrainerCallback):
    """Turns the first Ctrl-C into a checkpoint and an orderly end; a second one ends at once."""

    def __init__(self) -> None:
        self.asked = False
        """Whether Ctrl-C was pressed since the training began."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, SIGINT asks the training to stop.

        Only Python's own handler is replaced, and only in the main thread: elsewhere signals cannot
        be handled, and another handler is somebody's wish.
        """
        self.asked = False
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the next one ends at once
        sys.stderr.write(SAID)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop, if that was asked for."""
        if self.asked:
            control.should_save = control.should_training_stop = True
