"""The fence of the collectors: a fault of ours in understanding or watching one request costs that, and nothing else.

What is behind it may fail at any byte of any answer; what must not fail because of it is the booking of the request. A
fault is counted by stage (`inferwatch_collector_observer_errors_total`) and logged.
"""

import logging
import traceback
from collections.abc import Callable
from typing import Final, TypeVar

_log: Final = logging.getLogger(__name__)

# A parser that fails does so for each read of each stream; one line a stage and minute says as much.
LOG_INTERVAL_NS: Final = 60 * 1_000_000_000

T = TypeVar("T")


class Fence:
    """Runs steps that may fail."""

    def __init__(self, count: Callable[[str], None]) -> None:
        """`count` takes the stage of each fault."""
        self._count = count
        self._logged_ns: dict[str, int] = {}

    def run(self, stage: str, now_ns: int, step: Callable[..., T], *args: object) -> T | None:
        """Return what `step` returns; None after a fault."""
        try:
            return step(*args)
        except Exception as error:  # noqa: BLE001 - this is the fence
            self.caught(stage, now_ns, error)
            return None

    def holds(self, stage: str, now_ns: int, step: Callable[..., object], *args: object) -> bool:
        """Run `step` for what it does; return whether it went well."""
        try:
            step(*args)
        except Exception as error:  # noqa: BLE001 - this is the fence
            self.caught(stage, now_ns, error)
            return False
        return True

    def caught(self, stage: str, now_ns: int, error: Exception) -> None:
        """Take a fault. `stage` is a word from our own code, `now_ns` is CLOCK_MONOTONIC."""
        self._count(stage)
        if now_ns - self._logged_ns.get(stage, -LOG_INTERVAL_NS) >= LOG_INTERVAL_NS:
            self._logged_ns[stage] = now_ns
            # Where, but never with what: the message of an exception may quote the answer.
            place = traceback.extract_tb(error.__traceback__)[-1]
            _log.error(
                "observer_fault stage=%s error=%s at=%s:%s", stage, type(error).__name__, place.filename, place.lineno
            )
