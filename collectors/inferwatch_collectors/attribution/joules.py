"""From readings of energy counters to amounts of energy over stretches of time.

A counter counts millijoules since the driver was last loaded (NVML's nvmlDeviceGetTotalEnergyConsumption; DCGM's and
AMD's are alike). One that goes back was begun anew after the last reading, so all that it shows was used since: it
counts from 0. What was used between the last reading and the reset is not known to anybody.

What is never taken: the first reading of a GPU (a baseline), a growth over a gap longer than MAX_GAP_NS (nobody was
there to say who worked), and a growth that no GPU can draw, which is a broken reading.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from inferwatch_collectors.attribution.times import MAX_GAP_NS, NS_PER_S
from inferwatch_collectors.gpu.base import EnergyReading

# Eight times the hungriest boards of 2026. A broken reading shows the sum of years.
MAX_WATTS: Final = 10_000

# Counters are updated in steps of up to 0.1 s; short samples would look like peaks without this.
SLACK_NS: Final = NS_PER_S

# Two readings of power further apart than this say nothing about what was between them.
MAX_POWER_GAP_NS: Final = 10 * NS_PER_S

# The largest hosts have 16, and a MIG slice may come under a name of its own.
MAX_GPUS: Final = 256


class Baseline(msgspec.Struct, array_like=True, frozen=True):
    """What the next reading of a GPU is taken against."""

    stamp_ns: int
    energy_mj: int | None
    power_mw: int | None


class Used(NamedTuple):
    """Energy that one GPU used."""

    start_ns: int
    end_ns: int
    energy_uj: int


class Joules:
    """Keeps a baseline for each GPU."""

    def __init__(self, *, from_power: bool, baselines: dict[str, Baseline] | None = None) -> None:
        self._from_power = from_power
        self.baselines = baselines or {}
        self.rejected = 0  # readings that cannot be

    @property
    def measures(self) -> bool:
        """Whether anything here can tell energy."""
        return bool(self.baselines) and any(  # asked for each request: most machines have no GPU that can be read
            each.energy_mj is not None or (self._from_power and each.power_mw is not None)
            for each in self.baselines.values()
        )

    @property
    def told_until_ns(self) -> int | None:
        """The latest reading: energy before it is known."""
        return max((each.stamp_ns for each in self.baselines.values()), default=None) if self.measures else None

    def take(self, readings: Iterable[EnergyReading]) -> list[Used]:
        """Return what was used since the readings before."""
        return [used for reading in readings if (used := self._take_one(reading)) is not None]

    def _take_one(self, reading: EnergyReading) -> Used | None:
        before = self.baselines.get(reading.uuid)
        energy_mj, power_mw = reading.energy_mj, reading.power_mw
        if energy_mj is not None and energy_mj < 0:
            self.rejected += 1
            return None
        if before is None:
            if len(self.baselines) < MAX_GPUS:
                self.baselines[reading.uuid] = Baseline(reading.stamp_ns, energy_mj, power_mw)
            return None
        if reading.stamp_ns <= before.stamp_ns:
            return None
        if energy_mj is None and before.energy_mj is not None:
            return None  # failed this once: the next one covers the time of both
        self.baselines[reading.uuid] = Baseline(reading.stamp_ns, energy_mj, power_mw)
        duration_ns = reading.stamp_ns - before.stamp_ns
        if energy_mj is None:
            return self._integrated(before, power_mw, reading.stamp_ns)
        if before.energy_mj is None or duration_ns > MAX_GAP_NS:
            return None
        grown_mj = energy_mj - before.energy_mj if energy_mj >= before.energy_mj else energy_mj
        if grown_mj * 10**6 > MAX_WATTS * (duration_ns + SLACK_NS):  # mJ over ns is millions of watts
            self.rejected += 1
            return None
        return Used(before.stamp_ns, reading.stamp_ns, grown_mj * 1000)

    def _integrated(self, before: Baseline, power_mw: int | None, stamp_ns: int) -> Used | None:
        """Return the trapezium between two power readings, if wanted."""
        if not self._from_power or power_mw is None or before.power_mw is None:
            return None
        duration_ns = stamp_ns - before.stamp_ns
        if duration_ns > MAX_POWER_GAP_NS or power_mw < 0 or before.power_mw < 0:
            return None
        return Used(before.stamp_ns, stamp_ns, (power_mw + before.power_mw) * duration_ns // (2 * 10**6))
