"""A GPU that does not exist, for demonstrations: what a driver would say of one under the simulated engine. Pure.

Its figures follow from what the engine does: busy as the share of time in which it computed, power and temperature from
that and the batch. An engine that is slowed down has a GPU that is too hot. The figures of the card are those that a
large data-centre GPU has on paper.
"""

from typing import Any, Final

NAME: Final = "Simulated GPU (no hardware)"

IDLE_W: Final = 90.0
LIMIT_W: Final = 700.0
FULL_BATCH: Final = 128  # sequences at which it draws all it may
MEMORY_BYTES: Final = 80 * 2**30
WEIGHTS_BYTES: Final = 17 * 2**30
CACHE_BYTES: Final = 56 * 2**30
SM_HZ: Final = 1_980_000_000
AMBIENT_C: Final = 34.0
C_PER_W: Final = 0.055
TOO_HOT_C: Final = 91

# The card takes a while to become warm.
WARMING_S: Final = 8.0

# Several readers in one moment are told the same.
MIN_READING_S: Final = 0.2

NAMES_OF_SLOWDOWN: Final = ("hw_thermal",)


class SimulatedGpu:
    """One card. Times are of one steady clock."""

    def __init__(self, now_s: float) -> None:
        self._last_s = now_s
        self._busy_s = 0.0
        self._warmth_c = AMBIENT_C + IDLE_W * C_PER_W
        self._energy_mj = 0.0
        self._slow_ns = 0
        self._reading: dict[str, Any] = {}

    def read(self, now_s: float, *, busy_s: float, batch: int, cache: float, speed: float) -> dict[str, Any]:
        """Return what the driver says.

        Args:
            busy_s: how long the engine has computed, since its start.
            batch: sequences that run.
            cache: share of the KV cache in use.
            speed: of the engine; 1 is its own.
        """
        took_s = now_s - self._last_s
        if self._reading and took_s < MIN_READING_S:
            return self._reading
        busy = min(1.0, max(0.0, (busy_s - self._busy_s) / took_s)) if took_s > 0 else 0.0
        slowed = speed < 1
        watts = IDLE_W + (LIMIT_W - IDLE_W) * busy * (0.35 + 0.65 * min(1.0, batch / FULL_BATCH)) * min(1.0, speed)
        self._energy_mj += watts * took_s * 1000
        self._warmth_c += (AMBIENT_C + watts * C_PER_W - self._warmth_c) * min(1.0, took_s / WARMING_S)
        self._slow_ns += int(took_s * 1e9) if slowed else 0
        self._last_s, self._busy_s = now_s, busy_s
        self._reading = {
            "model": NAME,
            "utilization": busy,
            "power_mw": int(watts * 1000),
            "power_limit_mw": int(LIMIT_W * 1000),
            "energy_mj": int(self._energy_mj),
            "memory_total": MEMORY_BYTES,
            "memory_used": int(WEIGHTS_BYTES + CACHE_BYTES * (0.1 + 0.9 * min(1.0, cache))),
            "temperature_c": TOO_HOT_C if slowed else int(self._warmth_c),
            "sm_hz": int(SM_HZ * min(1.0, max(0.2, speed))),
            "clock_events": list(NAMES_OF_SLOWDOWN if slowed else ()),
            "clock_event_ns": dict.fromkeys(NAMES_OF_SLOWDOWN, self._slow_ns),
        }
        return self._reading
