"""Whether the wall clock was set: hours of the week that were counted before are then not what they were taken for.

Beside a clock that never goes back the wall clock stands still, but for steps: a host that boots in 1970 and asks for
the time later, a clock that was wrong by a day. That a host slept is none: the wall clock was right, and is.

Pure.
"""

from typing import Final

# Smaller steps, even some of them, put hardly a vote into the wrong hour.
STEP_S: Final = 300.0


class ClockSteps:
    """Compares the two clocks."""

    def __init__(self) -> None:
        self._apart_s: float | None = None  # None: nobody has looked yet

    def step(self, now_s: float, wall_s: float, slept_s: float) -> float:
        """Return by how much the wall clock was set since it was last looked at, 0 if by little.

        `now_s` is of a clock that never goes back and stands still while the host sleeps, `slept_s` how long it slept
        since its boot, `wall_s` Unix time.
        """
        apart_s = wall_s - now_s - slept_s
        if self._apart_s is None:
            self._apart_s = apart_s
        step_s = apart_s - self._apart_s
        if abs(step_s) < STEP_S:
            return 0.0
        self._apart_s = apart_s
        return step_s
