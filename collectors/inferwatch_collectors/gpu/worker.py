"""What the sampler's thread does: walk through units of work, each of which may hang.

Nothing here knows of the loop; what is found goes to a `Post`. See `sampler` for who starts and gives up threads.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from inferwatch_collectors.gpu.base import (
    Device,
    GpuEvent,
    GpuLostError,
    GpuSample,
    Identity,
    Source,
    SourceUnavailableError,
)

_log: Final = logging.getLogger(__name__)

NS_PER_S: Final = 1_000_000_000

# A driver may be installed, and a GPU reset, while we run; each attempt may take a while and wake a GPU that sleeps.
RETRY_NS: Final = 30 * NS_PER_S

# Without persistence mode the driver brings up each GPU when it is first asked, one after the other.
OPENING_NS: Final = 30 * NS_PER_S


class Round(msgspec.Struct):
    """What one walk through all units brought."""

    samples: list[GpuSample] = []
    lost: list[Identity] = []  # GPUs that do not answer
    newly_lost: int = 0
    events: list[GpuEvent] = []
    searched: bool = False  # every source was asked at least once
    cpu_s: float = 0.0
    duration_s: float = 0.0


class Post(Protocol):
    """Where a thread leaves what it has. Called from the thread."""

    def done(self, done: Round) -> bool:
        """A round is done; False if there is nobody any more."""

    def ended(self, worker: "Worker", *, clean: bool) -> None:
        """The thread ends; not `clean`: by a fault of ours."""


class Unit:
    """Something that the thread does and that may hang."""

    def __init__(self, name: str, work: Callable[["Unit", Round], None], device: Device | None = None) -> None:
        self.name = name
        self.work = work
        self.device = device
        self.due_ns = 0
        self.limit_ns = 0  # a call may take this long, if that is longer than the configured limit
        self.lost = False
        self.hung = False  # written by the loop only


class Feed:
    """One source, in the thread: opened, read, listened to, and opened again when all its GPUs are lost."""

    def __init__(self, source: Source, clock: Callable[[], int]) -> None:
        self._source = source
        self._clock = clock
        self._opening = Unit(f"{source.name}: opening", self._open)
        self._opening.limit_ns = OPENING_NS
        self._listening = Unit(f"{source.name}: events", self._listen)
        self._reading: list[Unit] = []
        self.is_open = False
        self.reason = ""  # why it is not open; "": not tried yet

    def units(self) -> list[Unit]:
        """What there is to do, in order."""
        return [*self._reading, self._listening] if self.is_open else [self._opening]

    def reopen_if_all_lost(self) -> None:
        """After a driver was reloaded, handles are worth nothing; only a new start helps."""
        units = [*self._reading, self._listening]
        if self.is_open and all(unit.lost for unit in self._reading) and not any(unit.hung for unit in units):
            self.is_open = False
            self._opening.due_ns = self._clock() + RETRY_NS

    def _open(self, unit: Unit, _: Round) -> None:
        try:
            devices = self._source.open()
        except SourceUnavailableError as error:
            unit.due_ns = self._clock() + RETRY_NS
            self.reason = str(error)
            return
        self._reading = [Unit(f"{self._source.name}: GPU {each.identity.index}", self._read, each) for each in devices]
        self.reason = ""
        self.is_open = True
        _log.info("gpu_source_open source=%s gpus=%d", self._source.name, len(devices))

    def _read(self, unit: Unit, done: Round) -> None:
        assert unit.device is not None
        now_ns = self._clock()
        try:
            done.samples.append(unit.device.sample(now_ns))
        except GpuLostError as error:
            done.lost.append(unit.device.identity)
            unit.due_ns = now_ns + RETRY_NS
            if not unit.lost:
                done.newly_lost += 1
                _log.error("gpu_lost gpu=%d uuid=%s reason=%s", *_names(unit.device.identity), error)
            unit.lost = True
        else:
            if unit.lost:
                _log.info("gpu_back gpu=%d uuid=%s", *_names(unit.device.identity))
            unit.lost = False

    def _listen(self, _: Unit, done: Round) -> None:
        done.events.extend(self._source.events())


class Worker(threading.Thread):
    """One thread. `unit` and `since_ns` say where it is; under the lock it either returns in time or is given up."""

    def __init__(self, feeds: Sequence[Feed], clock: Callable[[], int], interval_s: float, post: Post) -> None:
        super().__init__(name="gpu", daemon=True)
        self._feeds = feeds
        self._clock = clock
        self._interval_s = interval_s
        self._post = post
        self._lock = threading.Lock()
        self._stop_asked = threading.Event()
        self.unit: Unit | None = None
        self.since_ns = 0
        self.given_up = False

    def ask_to_stop(self) -> None:
        """End after the present call."""
        self._stop_asked.set()

    def give_up(self, unit: Unit, since_ns: int) -> bool:
        """Tell it that nobody waits any more; False if it has left `unit` in the meantime."""
        with self._lock:
            if self.unit is not unit or self.since_ns != since_ns:
                return False
            self.given_up = True
            return True

    def run(self) -> None:
        """Walk through all units once per interval, until told to stop or given up."""
        clean = False
        try:
            due_s = time.monotonic()
            while not self._stop_asked.is_set() and self._walk():
                # Missed rounds are not made up for.
                due_s = max(due_s + self._interval_s, time.monotonic())
                self._stop_asked.wait(max(0.0, due_s - time.monotonic()))
            clean = True
        finally:
            self._post.ended(self, clean=clean)

    def _walk(self) -> bool:
        done = Round()
        started_s, started_cpu_s = time.monotonic(), time.thread_time()
        for feed in self._feeds:
            for unit in feed.units():
                if unit.hung or self._clock() < unit.due_ns:
                    continue
                self._enter(unit)
                try:
                    unit.work(unit, done)
                finally:
                    returned = self._leave()
                if not returned or self._stop_asked.is_set():
                    # What a hung call brought in the end is old.
                    return False
            feed.reopen_if_all_lost()
        done.searched = all(feed.is_open or feed.reason for feed in self._feeds)
        done.cpu_s = time.thread_time() - started_cpu_s
        done.duration_s = time.monotonic() - started_s
        return self._post.done(done)

    def _enter(self, unit: Unit) -> None:
        with self._lock:
            # In this order: who looks at `unit` first, without the lock, never finds the time of an earlier call.
            self.since_ns = self._clock()
            self.unit = unit

    def _leave(self) -> bool:
        with self._lock:
            if not self.given_up:
                self.unit = None
            return not self.given_up


def _names(identity: Identity) -> tuple[int, str]:
    return identity.index, identity.uuid
