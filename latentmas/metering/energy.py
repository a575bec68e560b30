"""Energy from counters of the machine: RAPL for processors, NVML for NVIDIA's devices."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["POWERCAP", "Counter", "EnergyMeter", "nvml_counters", "rapl_counters"]

POWERCAP = Path("/sys/class/powercap")
LOOKED_AT_EVERY = 60.0
"""Seconds between two looks at counters that start again at zero, after ten minutes or more."""


class Counter(NamedTuple):
    """A counter of energy that only rises."""

    name: str
    """What it counts: `package-0`, `dram-0`, `cuda:0`."""
    read: Callable[[], float]
    """Returns joules since some moment."""
    span: float | None = None
    """Joules after which it starts again at zero; None: never."""


class EnergyMeter:
    """Energy by counter since the start, and the reasons why other energy is not measured."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self.reasons: dict[str, str] = {}
        """What is not measured → why."""
        self._counters: list[Counter] = []
        for what, found in {"processor": rapl_counters(root), "GPU": nvml_counters()}.items():
            if isinstance(found, str):
                self.reasons[f"energy of the {what}"] = found
            else:
                self._counters += found
        self._last = {counter.name: counter.read() for counter in self._counters}
        self._joules = dict.fromkeys(self._last, 0.0)
        self._lock, self._stop = threading.Lock(), threading.Event()
        if any(counter.span for counter in self._counters):
            threading.Thread(target=self._look, name="energy meter", daemon=True).start()

    def read(self) -> dict[str, float]:
        """Joules by counter so far."""
        with self._lock:
            for counter in self._counters:
                now, last = counter.read(), self._last[counter.name]
                wrapped = counter.span if counter.span and now < last else 0.0
                self._joules[counter.name] += now - last + wrapped
                self._last[counter.name] = now
            return dict(self._joules)

    def close(self) -> None:
        """End."""
        self._stop.set()

    def _look(self) -> None:
        while not self._stop.wait(LOOKED_AT_EVERY):
            self.read()


def rapl_counters(root: Path = POWERCAP) -> list[Counter] | str:
    """Counters of processors and their memory; or the reason why they cannot be read.

    Args:
        root: Folder of the kernel's power capping framework.
    """
    zones = sorted(root.glob("intel-rapl:*"))  # AMD's processors have this name as well
    if not zones:
        return f"{root} has no RAPL zones (the platform has no such counter, or hides it)"
    try:
        found = [counter for zone in zones for counter in _zone(zone)]
    except PermissionError as error:
        return f"{error.filename} is readable by root alone; run as root, or change its permissions"
    except (OSError, ValueError) as error:
        return f"the RAPL zones in {root} cannot be read: {error}"
    return found or f"the RAPL zones in {root} count neither a processor nor its memory"


def _zone(zone: Path) -> Iterator[Counter]:
    """The counter of a zone that no other zone contains: a package, or memory beside it."""
    name, path = (zone / "name").read_text().strip(), zone / "energy_uj"
    if name.startswith("package-") or name == "dram":
        path.read_text()  # fails here rather than in the middle
        span = int((zone / "max_energy_range_uj").read_text()) / 1e6
        place = "" if name != "dram" else f"-{zone.name.split(':')[1]}"
        yield Counter(f"{name}{place}", lambda: int(path.read_text()) / 1e6, span)


def nvml_counters() -> list[Counter] | str:
    """Counters of the CUDA devices that torch sees; or the reason why they cannot be read.

    A device's counter is that of the whole board, whoever uses it.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    try:
        import pynvml
    except ImportError:
        return "NVML is not installed; install it with: pip install 'latentmas[energy]'"
    try:
        pynvml.nvmlInit()
        return [_board(pynvml, torch, index) for index in range(torch.cuda.device_count())]
    except pynvml.NVMLError as error:
        return f"NVML cannot read the energy of the devices: {error}"


def _board(pynvml: Any, torch: Any, index: int) -> Counter:
    """The counter of a device, found by its UUID: NVML numbers devices in an order of its own."""
    handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(index).uuid}")
    pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)  # fails here rather than in the middle

    def read() -> float:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3

    return Counter(f"cuda:{index}", read)
