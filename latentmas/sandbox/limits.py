"""What a program in the sandbox may use."""

from __future__ import annotations

import math
from dataclasses import dataclass

from latentmas.errors import LatentMASError

__all__ = ["MEBIBYTE", "Limits"]

MEBIBYTE = 2**20
SMALLEST_MEMORY = 64 * MEBIBYTE
"""Bytes of address space below which the interpreter itself does not start."""


@dataclass(frozen=True)
class Limits:
    """Bounds on one program; every one of them is enforced from outside or by the kernel."""

    seconds: float = 10.0
    """Wall-clock time, and processor time summed over the program's threads."""
    memory_bytes: int = 512 * MEBIBYTE
    """Address space."""
    output_chars: int = 6000
    """Characters of output that are kept, standard output and standard error together."""
    file_bytes: int = 16 * MEBIBYTE
    """Size of one file in the working directory."""
    folder_bytes: int = 64 * MEBIBYTE
    """Size of the whole working directory."""
    folder_entries: int = 1000
    """Files and directories in the working directory."""
    folder_depth: int = 32
    """Levels of directories below the working directory."""
    open_files: int = 32
    """Open file descriptors."""
    threads: int = 64
    """Threads, the first one included."""

    def __post_init__(self) -> None:
        """Refuse bounds that no program could live in.

        Raises:
            LatentMASError: naming the argument, what was given and what is allowed.
        """
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise LatentMASError(f"seconds must be above 0 and finite, not {self.seconds!r}")
        if self.memory_bytes < SMALLEST_MEMORY:
            raise LatentMASError(
                f"memory_bytes must be at least {SMALLEST_MEMORY} (64 MiB), "
                f"not {self.memory_bytes!r}; the interpreter needs that much to start"
            )
        if self.output_chars < 1:
            raise LatentMASError(f"output_chars must be at least 1, not {self.output_chars!r}")

    @property
    def output_bytes(self) -> int:
        """Bytes of one stream that stop the program: no character takes more than 4."""
        return 4 * self.output_chars
