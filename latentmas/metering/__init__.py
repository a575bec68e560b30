"""What work costs while it is done: time, peak memory and energy. No torch until it is needed."""

from latentmas.metering.memory import release_unused, resident_bytes
from latentmas.metering.meter import Cost, CostMeter

__all__ = ["Cost", "CostMeter", "release_unused", "resident_bytes"]
