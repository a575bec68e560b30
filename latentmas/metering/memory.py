"""Peaks of memory above what was held before: of the process, and of each CUDA device."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = [
    "CudaGauge",
    "Gauge",
    "KernelGauge",
    "Peak",
    "SampledGauge",
    "release_unused",
    "resident_bytes",
    "resident_gauge",
]

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SAMPLED_EVERY = 0.005
"""Seconds between two looks at the memory where the kernel does not keep its peak."""


class Gauge(ABC):
    """A number of bytes that rises and falls, and its peak since a moment."""

    name: str
    """What is measured; gauges of one name measure the same memory."""

    @abstractmethod
    def now(self) -> int:
        """Bytes held now."""

    @abstractmethod
    def peak(self) -> int:
        """Most bytes held since the last reset."""

    @abstractmethod
    def reset(self) -> None:
        """Begin a new peak at what is held now."""

    def close(self) -> None:  # noqa: B027  # most gauges hold nothing
        """Called when nobody measures any more."""


class KernelGauge(Gauge):
    """Resident memory of this process, whose peak the Linux kernel keeps."""

    name = "resident"

    def now(self) -> int:
        """Bytes held now."""
        return _status("VmRSS")

    def peak(self) -> int:
        """Most bytes held since the last reset; a peak of any length is seen."""
        return _status("VmHWM")

    def reset(self) -> None:
        """Begin a new peak."""
        CLEAR.write_text("5")


class SampledGauge(Gauge):
    """Resident memory of this process, looked at every few milliseconds by a thread."""

    name = "resident"

    def __init__(self) -> None:
        self._highest, self._stop = 0, threading.Event()
        self._thread: threading.Thread | None = None

    def now(self) -> int:
        """Bytes held now."""
        return resident_bytes()

    def peak(self) -> int:
        """Most bytes seen since the last reset."""
        self._highest = max(self._highest, self.now())
        return self._highest

    def reset(self) -> None:
        """Begin a new peak."""
        self._highest = self.now()
        if self._thread is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._look, name="memory gauge", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def _look(self) -> None:
        while not self._stop.wait(SAMPLED_EVERY):
            self._highest = max(self._highest, self.now())


class CudaGauge(Gauge):
    """Memory that torch's allocator has handed out on a CUDA device."""

    def __init__(self, index: int) -> None:
        import torch

        self.name, self._index, self._cuda = f"cuda:{index}", index, torch.cuda

    def now(self) -> int:
        """Bytes held now."""
        return self._cuda.memory_allocated(self._index)

    def peak(self) -> int:
        """Most bytes held since the last reset."""
        return self._cuda.max_memory_allocated(self._index)

    def reset(self) -> None:
        """Begin a new peak."""
        self._cuda.reset_peak_memory_stats(self._index)


class Peak:
    """How far memory rises above where it was at the start; peaks may be nested."""

    _open: list[Peak] = []  # noqa: RUF012  # shared on purpose
    _lock = threading.RLock()

    def __init__(self, gauge: Gauge) -> None:
        self.gauge = gauge
        self.before = 0
        self._highest = 0
        with self._lock:
            for other in self._alike():
                other._note()  # resetting the gauge would lose its peak
            gauge.reset()
            self.before = self._highest = gauge.now()
            self._open.append(self)

    def read(self) -> int:
        """Most bytes held so far beyond those at the start."""
        with self._lock:
            if self in self._open:
                self._note()
        return max(0, self._highest - self.before)

    def close(self) -> None:
        """End; `read` gives the final peak."""
        with self._lock:
            if self not in self._open:
                return
            self._note()
            self._open.remove(self)
            if not self._alike():
                self.gauge.close()

    def _note(self) -> None:
        self._highest = max(self._highest, self.gauge.peak())

    def _alike(self) -> list[Peak]:
        return [one for one in self._open if one.gauge.name == self.gauge.name]


_sampled: SampledGauge | None = None


def resident_gauge() -> Gauge:
    """The best gauge of this process's memory that the platform offers."""
    global _sampled
    gauge = KernelGauge()
    with suppress(OSError, ValueError):
        with Peak._lock:
            for other in Peak._open:
                if other.gauge.name == gauge.name:
                    other._note()
            gauge.reset()
        if gauge.peak() > 0:
            return gauge
    _sampled = _sampled or SampledGauge()
    return _sampled


def resident_bytes() -> int:
    """Bytes of memory that this process holds, on any platform."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def release_unused() -> None:
    """Return freed memory to the system, so that what is allocated next is seen to be added.

    The C library keeps freed memory for later. A second, equal piece of work would be given that
    memory, and seem to need none.
    """
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):
        libc: Any = ctypes.CDLL(None)
        libc.malloc_trim(0)


def cuda_devices() -> list[int]:
    """Numbers of the CUDA devices that torch uses; none before it has used the first."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return []
    return list(range(torch.cuda.device_count()))


def _status(field: str) -> int:
    """A field of the process's status, in bytes.

    Raises:
        OSError: The file does not exist.
        ValueError: The field is missing.
    """
    for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{STATUS} has no {field}")
