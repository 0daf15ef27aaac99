"""What the parts know through a restart: taken up from the ledger at the start, handed to its last commit at the end.

What is counted goes with each commit. Here is what must be in an order: counters before who reads them, then who looks
at memos; and at the end what is not written with each request.
"""

import asyncio
import logging
import time
from typing import Final

from inferwatch_collectors.fence import Fence
from inferwatch_collectors.ledger.base import Ledger, LedgerError
from inferwatch_collectors.parts import Parts

_log: Final = logging.getLogger(__name__)

# What drift knows is written down before the last commit: a hundred streams of 50 kB take a fifth of this.
WRITE_S: Final = 1.0


def slept_s() -> float:
    """Return for how long the host has slept since its boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


async def take_up(parts: Parts, ledger: Ledger) -> None:
    """Take up what an earlier life knew. Once, before anything is counted.

    Raises:
        LedgerError: it cannot be read, and neither can the one that was begun in its place.
    """
    try:
        rows = await ledger.load_metrics()
    except LedgerError as error:
        _log.error("ledger_unreadable reason=%s", error)
        rows = await ledger.load_metrics()  # a corrupt file has been replaced by now
    restored = parts.recorder.restore(rows, now_s=time.monotonic())
    for name, reason in restored.discarded:
        _log.warning("metric_not_restored name=%s reason=%s", name, reason)
    parts.meter.restore(time.monotonic_ns(), time.time_ns())
    parts.budgets.restore()
    parts.anomalies.resume(time.monotonic())
    parts.drift.resume(time.monotonic())
    # The engine may say what it is before the first tick.
    parts.drift.tick(time.monotonic(), time.time(), slept_s())
    parts.canary.resume(time.monotonic(), time.time(), slept_s())


async def write_down(parts: Parts) -> None:
    """Hand what drift and canary know to the last commit, so that a restart forgets no evidence. In WRITE_S."""
    drift, fence = parts.drift, Fence(parts.recorder.observer_error)  # the last commit must not fail
    fence.run("canary", time.monotonic_ns(), parts.canary.finish)
    fence.run("drift", time.monotonic_ns(), drift.finish)
    deadline_s = time.monotonic() + WRITE_S
    while drift.unwritten and time.monotonic() < deadline_s:
        fence.run("drift", time.monotonic_ns(), drift.write_one)
        await asyncio.sleep(0)
    if drift.unwritten:
        _log.warning("drift_not_written_down streams=%d", drift.unwritten)
