"""`CostMeter`: what was added is counted, what was there before is not."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from latentmas.errors import LatentMASError
from latentmas.metering import CostMeter
from latentmas.metering import memory as _memory
from latentmas.metering.energy import EnergyMeter, rapl_counters
from latentmas.metering.memory import Gauge, KernelGauge, Peak, SampledGauge

MIB = 2**20
SIZE = 48 * MIB
"""More than the C library takes from its own heap."""
GAUGES = [
    pytest.param(KernelGauge, marks=pytest.mark.skipif(sys.platform != "linux", reason="/proc")),
    SampledGauge,
]


def held(size: int = SIZE) -> torch.Tensor:
    """Memory that is written to, so that it is resident."""
    return torch.ones(size // 4)


@pytest.fixture(params=GAUGES, ids=lambda kind: kind.__name__)
def gauge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Gauge]:
    """Each way to see the memory in turn."""
    monkeypatch.setattr("latentmas.metering.meter.resident_gauge", request.param)
    return request.param


def test_a_peak_is_that_of_what_was_added(gauge: type[Gauge]):
    before = held(2 * SIZE)
    with CostMeter() as meter:
        x = held()
        time.sleep(0.05)
        del x
    assert len(before)
    assert meter.cost.memory == pytest.approx(SIZE, abs=6 * MIB)
    assert meter.cost.peak_memory == meter.cost.memory


def test_work_that_is_repeated_needs_as_much_again(gauge: type[Gauge]):
    """The C library keeps what is freed; equal work must not seem to need nothing."""
    found = []
    for _ in range(3):
        with CostMeter() as meter:
            parts = [held(SIZE // 64) for _ in range(64)]
            time.sleep(0.05)
            del parts
        found.append(meter.cost.memory)
    assert found == [pytest.approx(SIZE, abs=6 * MIB)] * 3


def test_work_that_adds_nothing_costs_next_to_no_memory(gauge: type[Gauge]):
    x = held()
    with CostMeter() as meter:
        x += 1
        time.sleep(0.02)
    assert meter.cost.memory is not None and meter.cost.memory < 4 * MIB


def test_meters_may_be_nested(gauge: type[Gauge]):
    with CostMeter() as outer:
        x = held(2 * SIZE)
        time.sleep(0.05)
        del x
        with CostMeter() as inner:
            y = held()
            time.sleep(0.05)
            del y
    assert inner.cost.memory == pytest.approx(SIZE, abs=6 * MIB)
    assert outer.cost.memory == pytest.approx(2 * SIZE, abs=6 * MIB)
    assert Peak._open == []


def test_a_peak_is_read_while_the_work_goes_on(gauge: type[Gauge]):
    with CostMeter() as meter:
        x = held()
        time.sleep(0.02)
        first = meter.read()
        x = torch.cat([x, held()])
        time.sleep(0.02)
    assert first.memory == pytest.approx(SIZE, abs=6 * MIB)
    # Both parts and what they are joined to.
    assert meter.cost.memory == pytest.approx(4 * SIZE, abs=10 * MIB)
    assert meter.cost.seconds > first.seconds > 0
    assert meter.stop() == meter.cost


def test_the_sampled_gauge_takes_over_without_the_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(_memory, "CLEAR", tmp_path / "missing" / "clear_refs")
    assert isinstance(_memory.resident_gauge(), SampledGauge)


def test_seconds_of_the_clock_and_of_the_processor():
    with CostMeter() as meter:
        time.sleep(0.2)
    assert 0.2 <= meter.cost.seconds < 1
    assert meter.cost.cpu_seconds < 0.15
    with CostMeter() as meter:
        began = time.process_time()
        while time.process_time() - began < 0.1:
            pass
    assert meter.cost.cpu_seconds == pytest.approx(0.1, abs=0.05)


def test_a_meter_that_has_not_started_says_so():
    with pytest.raises(LatentMASError, match="has not started; use it in a with statement"):
        CostMeter().cost  # noqa: B018


class Counted(Gauge):
    """Memory as a device's allocator counts it."""

    name = "cuda:0"
    held, highest = 0, 0

    def now(self) -> int:
        return Counted.held

    def peak(self) -> int:
        return Counted.highest

    def reset(self) -> None:
        Counted.highest = Counted.held

    @staticmethod
    def take(size: int) -> None:
        Counted.held += size
        Counted.highest = max(Counted.highest, Counted.held)


def test_a_devices_peak_outlives_the_resets_of_inner_meters():
    Counted.take(100)
    outer = Peak(Counted())
    Counted.take(50)
    Counted.take(-50)
    inner = Peak(Counted())
    Counted.take(7)
    Counted.take(-7)
    inner.close()
    outer.close()
    assert (inner.read(), outer.read()) == (7, 50)


@pytest.mark.gpu
def test_memory_of_a_cuda_device_above_the_start():
    kept = torch.ones(SIZE // 4, device="cuda")
    with CostMeter() as meter:
        x = torch.ones(SIZE // 2, device="cuda")
        del x
    assert len(kept)
    assert meter.cost.device_memory == {"cuda:0": 2 * SIZE}
    assert meter.cost.peak_memory == 2 * SIZE


# --- energy -----------------------------------------------------------------------------------


def zone(root: Path, place: str, name: str, microjoules: int, span: int = 1_000_000_000) -> Path:
    folder = root / place
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{span}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def test_packages_and_their_memory_are_counted_once_each(tmp_path: Path):
    package = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    memory = zone(tmp_path, "intel-rapl:0:2", "dram", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 4_000_000)  # a part of the package
    zone(tmp_path, "intel-rapl:1", "psys", 9_000_000)  # the package and more
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000)  # the same by another way
    meter = EnergyMeter(tmp_path)
    package.write_text("7500000\n")
    memory.write_text("1250000\n")
    assert meter.read() == {"package-0": 2.5, "dram-0": 0.25}
    meter.close()


def test_a_counter_that_starts_again_goes_on(tmp_path: Path):
    path = zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000, span=10_000_000)
    meter = EnergyMeter(tmp_path)
    path.write_text("2000000\n")
    assert meter.read() == {"package-0": 3.0}
    path.write_text("1000000\n")
    assert meter.read() == {"package-0": 12.0}
    meter.close()


def test_the_reason_is_given_where_energy_is_not_measured(tmp_path: Path, monkeypatch: Any):
    assert "has no RAPL zones" in str(rapl_counters(tmp_path))
    path = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    real = Path.read_text

    def refuse(self: Path, *args: Any, **options: Any) -> str:
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert "readable by root alone" in str(rapl_counters(tmp_path))
    meter = EnergyMeter(tmp_path)
    assert meter.read() == {}
    assert "readable by root alone" in meter.reasons["energy of the processor"]
