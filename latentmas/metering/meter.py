"""`CostMeter`: seconds, peak memory and energy of whatever runs inside it."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.metering.energy import EnergyMeter
from latentmas.metering.memory import (
    CudaGauge,
    Peak,
    cuda_devices,
    release_unused,
    resident_gauge,
)

__all__ = ["Cost", "CostMeter"]


@dataclass(frozen=True)
class Cost:
    """What a piece of work took."""

    seconds: float
    """Wall time."""
    cpu_seconds: float
    """Processor time of this process, all threads; not of processes that it started."""
    memory: int | None
    """Peak of the process's resident memory above where it was at the start, in bytes."""
    device_memory: dict[str, int] = field(default_factory=dict)
    """Device (`cuda:0`) → peak of what torch has allocated there above the start, in bytes."""
    energy: dict[str, float] = field(default_factory=dict)
    """Counter → joules: `package-0` and `dram-0` of processors, `cuda:0` of devices. A counter
    counts the whole part, whoever uses it."""
    unmeasured: dict[str, str] = field(default_factory=dict)
    """What could not be measured → why."""

    @property
    def joules(self) -> float | None:
        """Sum over all counters; None if none could be read."""
        return sum(self.energy.values()) if self.energy else None

    @property
    def peak_memory(self) -> int | None:
        """Peak above the start where models run: on the CUDA devices in use, else in memory."""
        return sum(self.device_memory.values()) if self.device_memory else self.memory

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"joules": self.joules, "peak_memory": self.peak_memory}


class CostMeter:
    """Measures what runs inside it.

    Peaks count what is added to the memory that was held at the start. Meters may be nested; those
    of threads that run at the same time see the memory of the whole process. Where the kernel or
    torch keeps a peak, a meter resets it: read peaks of your own (`VmHWM`, `ru_maxrss`,
    `torch.cuda.max_memory_allocated`) outside of meters, or from the meter.

    Example:
        ```
        with CostMeter() as meter:
            system.run(rows)
        print(meter.cost.seconds, meter.cost.memory)
        ```
    """

    def __init__(self) -> None:
        self._peaks: list[Peak] = []
        self._unmeasured: dict[str, str] = {}
        self._energy: EnergyMeter | None = None
        self._cost: Cost | None = None
        self._wall = self._processor = 0.0

    def __enter__(self) -> CostMeter:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> CostMeter:
        """Begin, where a `with` statement does not fit; `stop` ends it."""
        release_unused()
        self._cost, self._unmeasured = None, {}
        try:
            self._peaks = [Peak(resident_gauge())]
        except (ImportError, OSError, ValueError) as error:
            self._peaks = []
            self._unmeasured["memory"] = f"the platform does not say what is resident: {error}"
        self._peaks += [Peak(CudaGauge(index)) for index in cuda_devices()]
        self._energy = EnergyMeter()
        _wait_for_devices()
        self._wall, self._processor = time.perf_counter(), time.process_time()
        return self

    def read(self) -> Cost:
        """The cost so far, or in all once the meter has stopped.

        Raises:
            LatentMASError: the meter has not started.
        """
        if self._cost is not None:
            return self._cost
        if self._energy is None:
            raise LatentMASError("the meter has not started; use it in a with statement")
        _wait_for_devices()
        seconds = time.perf_counter() - self._wall
        processor = time.process_time() - self._processor
        peaks = {peak.gauge.name: peak.read() for peak in self._peaks}
        for index in cuda_devices():  # those that the work was the first to use
            peaks.setdefault(f"cuda:{index}", CudaGauge(index).peak())
        memory = peaks.pop("resident", None)
        return Cost(
            seconds=seconds,
            cpu_seconds=processor,
            memory=memory,
            device_memory={name: size for name, size in peaks.items() if size},
            energy=self._energy.read(),
            unmeasured={**self._unmeasured, **self._energy.reasons},
        )

    def stop(self) -> Cost:
        """End, and return the cost; a second call does nothing more."""
        self._cost = self.read()
        for peak in self._peaks:
            peak.close()
        if self._energy is not None:
            self._energy.close()
        return self._cost

    @property
    def cost(self) -> Cost:
        """The cost so far, or in all once the meter has stopped."""
        return self.read()


def _wait_for_devices() -> None:
    """Let devices finish what was asked of them, so that their time belongs to the work."""
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        for index in cuda_devices():
            torch.cuda.synchronize(index)
