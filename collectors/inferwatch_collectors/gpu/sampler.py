"""The thread in which drivers are asked, and the watchdog on the loop that looks after it.

A driver call can hang: a GPU that fell off the bus blocks for seconds, sometimes for ever, and nothing can interrupt
it. So the loop never calls a driver, it looks at the clock. What may hang is a `Unit`: opening a source, reading one
GPU, asking for events. When the thread is in one unit for longer than the limit, the loop marks that unit as hung,
gives the thread up and starts another, which leaves the unit out. A thread that was given up ends as soon as its call
returns, and only then the unit is asked again. So there is at most one thread for each hung unit and one that works;
when all units hang there is none that works.

Threads are daemons and are not waited for: a hung call cannot hold up the end of the process. (One that sleeps in the
kernel uninterruptibly holds up the end of any process, whatever it does; the relays are other processes.)

Threads hand over what they read with `call_soon_threadsafe`, and the loop alone touches everything else.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from inferwatch_collectors.gpu import worker as threads
from inferwatch_collectors.gpu.base import Identity, Source
from inferwatch_collectors.gpu.worker import NS_PER_S, Feed, Round, Unit, Worker

_log: Final = logging.getLogger(__name__)

# A thread that died of a fault of ours would do so again.
RESTART_NS: Final = 30 * NS_PER_S

# Readings that the loop has not taken yet. One is enough; more only if the loop is blocked.
MAX_UNTAKEN: Final = 8

# The watchdog looks several times within the limit, and not more often than a person could notice.
MIN_CHECK_S: Final = 0.02
MAX_CHECK_S: Final = 0.5


class Taker(Protocol):
    """Who is told, on the loop."""

    def take(self, done: Round) -> None:
        """A round is done."""

    def hung(self, identity: Identity | None) -> None:
        """A call does not return. None: it is not about one GPU."""

    def died(self) -> None:
        """The thread ended by a fault of ours."""


class _Post:
    """From the thread to the loop. A loop that is gone, or does not take, stops nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sampler: "GpuSampler") -> None:
        self._loop = loop
        self._sampler = sampler
        # Each has one writer: the thread that works, the loop, the thread that works.
        self._posted = 0
        self.taken = 0
        self.dropped = 0

    def done(self, done: Round) -> bool:
        """Hand over a round; False if there is nobody any more."""
        if self._posted - self.taken >= MAX_UNTAKEN:
            self.dropped += 1
            return True
        self._posted += 1
        return self._call(self._sampler.took, done)

    def ended(self, worker: Worker, *, clean: bool) -> None:
        self._call(self._sampler.ended, worker, clean)

    def _call(self, function: Callable[..., object], *arguments: Any) -> bool:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed
            return False
        return True


class GpuSampler:
    """Owns the threads. Everything here but the threads themselves happens on the loop."""

    def __init__(
        self,
        sources: Sequence[Source],
        taker: Taker,
        *,
        interval_s: float,
        hang_timeout_s: float,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._feeds = [Feed(source, clock) for source in sources]
        self._taker = taker
        self._interval_s = interval_s
        self._hang_timeout_ns = int(hang_timeout_s * NS_PER_S)
        self._check_s = min(max(hang_timeout_s / 4, MIN_CHECK_S), MAX_CHECK_S)
        self._clock = clock
        self._post: _Post | None = None
        self._worker: Worker | None = None
        self._start_ns = 0  # not before this
        self._stopped = False
        self._told_reason = ""
        self._dropped = 0

    async def run(self) -> None:
        """Sample and watch for ever."""
        self._post = _Post(asyncio.get_running_loop(), self)
        while True:
            self.check()
            await asyncio.sleep(self._check_s)

    def close(self) -> None:
        """Tell the thread to end; does not wait for it."""
        self._stopped = True
        if self._worker is not None:
            self._worker.ask_to_stop()

    def check(self) -> None:
        """Give up a thread that hangs, start one where there is none."""
        worker = self._worker
        if worker is not None and (unit := worker.unit) is not None:
            since_ns = worker.since_ns
            if self._clock() - since_ns > max(self._hang_timeout_ns, unit.limit_ns):
                self._give_up(worker, unit, since_ns)
        if self._worker is None:
            self._start()

    def take_dropped(self) -> int:
        """Return how many rounds were dropped since the last call."""
        total = 0 if self._post is None else self._post.dropped
        fresh, self._dropped = total - self._dropped, total
        return fresh

    def took(self, done: Round) -> None:
        """A round came from the thread."""
        if self._post is not None:
            self._post.taken += 1
        if self._stopped:
            return
        self._taker.take(done)
        self._tell_if_nothing_found(done)

    def ended(self, worker: Worker, clean: bool) -> None:
        """A thread ended: it was given up and its call returned, it was told to, or it died."""
        if worker.unit is not None and worker.given_up:
            worker.unit.hung = False
            # What hangs, hangs again, and each time the others wait for the limit to pass.
            worker.unit.due_ns = self._clock() + threads.RETRY_NS
            _log.warning("gpu_call_returned unit=%r after_s=%.1f", worker.unit.name, self._in_call_s(worker))
        if worker is self._worker:
            self._worker = None
        if not clean and not self._stopped:
            self._start_ns = self._clock() + RESTART_NS
            self._taker.died()
            _log.error("gpu_thread_died restart_in_s=%d", RESTART_NS // NS_PER_S)

    def _give_up(self, worker: Worker, unit: Unit, since_ns: int) -> None:
        if not worker.give_up(unit, since_ns):
            return
        unit.hung = True
        self._worker = None
        _log.error("gpu_call_hangs unit=%r for_s=%.1f", unit.name, self._in_call_s(worker))
        self._taker.hung(None if unit.device is None else unit.device.identity)

    def _start(self) -> None:
        if self._stopped or self._post is None or self._clock() < self._start_ns:
            return
        if all(unit.hung for feed in self._feeds for unit in feed.units()):
            return
        worker = Worker(self._feeds, self._clock, self._interval_s, self._post)
        try:
            worker.start()
        except RuntimeError as error:  # the host has no threads left
            self._start_ns = self._clock() + RESTART_NS
            _log.warning("gpu_thread_not_started reason=%s", error)
        else:
            self._worker = worker

    def _in_call_s(self, worker: Worker) -> float:
        return (self._clock() - worker.since_ns) / NS_PER_S

    def _tell_if_nothing_found(self, done: Round) -> None:
        """One line, and again only if the reason is another."""
        if not done.searched:
            return
        reason = "" if any(feed.is_open for feed in self._feeds) else "; ".join(feed.reason for feed in self._feeds)
        if reason and reason != self._told_reason:
            _log.warning("gpu_none_found everything else works, gpu.source: none ends the search: %s", reason)
        self._told_reason = reason
