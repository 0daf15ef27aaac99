"""Watches one engine: scrapes it, mirrors what it says, and compares that with the books.

A scrape's counts are compared only when the relays have told everything that they saw before the answer came
(`Traffic.told_ns`), so that no request is taken for missing that is merely on its way through the tap.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

import msgspec

from inferwatch.record import LateCount, RequestRecord
from inferwatch_collectors import metrics as m
from inferwatch_collectors.engine.capture import REASONS, TYPES, Capture, Totals, Verdict
from inferwatch_collectors.engine.mirror import Mirror
from inferwatch_collectors.engine.names import BY_ENGINE, EngineNames
from inferwatch_collectors.engine.normalise import EngineReading, read
from inferwatch_collectors.engine.parse import ParseError
from inferwatch_collectors.engine.scraper import ScrapeError, Scraper, Target
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.metrics import TokenType

_log: Final = logging.getLogger(__name__)

# An engine that is away, or has no metrics, is asked once a minute.
MAX_PAUSE_S: Final = 60.0

# A reading that three scrapes in a row have not renewed is no reading of the present (the loop may hang).
STALE_SCRAPES: Final = 3

# Long enough for most requests; the service is then either very busy with very long ones, or one of them hangs.
VERDICT_STALE_S: Final = 900.0

# Relays report once a second.
TELL_POLL_S: Final = 0.05

# At a moment of rest two scrapes tell what hung-up requests had; a service may not be at rest for long. It is looked
# for so often, and what is found is used a few times in a row at most: an engine that others keep busy never rests.
REST_POLL_S: Final = 0.25
HURRY_S: Final = 1.0
MAX_HURRIES: Final = 3

BOOKS: Final = "engine_books"
STATE: Final = "engine_capture"
KIND: Final = "engine_kind"
HUNG_UP: Final = "engine_hung_up"


class Traffic(Protocol):
    """What the rest of the collector knows of the requests."""

    def open_ids(self) -> AbstractSet[str]:
        """Return the ids of the requests that are open and were not booked before."""

    def told_ns(self) -> int:
        """Return the CLOCK_MONOTONIC time up to which all that relays saw has been applied; 0 if one is missing."""


class EngineMonitor:
    """One engine. `record` takes each request when it is booked, in the step that adds it to the journal."""

    def __init__(
        self,
        store: MetricStore,
        upstream: str,
        target: Target,
        traffic: Traffic,
        *,
        interval_s: float = 5.0,
        wall: Callable[[], float] = time.time,
        on_late: Callable[[LateCount], None] | None = None,
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        """`upstream` is the label: `host:port` of the configured engine.

        `on_late` takes what the engine counted for requests that were booked without counts. It books that in the same
        step, without waiting for anything: what is remembered of it here is committed then. `on_restart` is called when
        the engine is found to have begun anew, or to be another one.
        """
        self._store = store
        self._upstream = upstream
        self._traffic = traffic
        self._interval_s = interval_s
        self._wall = wall
        self._scraper = Scraper(target)
        self._mirror = Mirror(store, upstream)
        self._on_late = on_late
        self._on_restart = on_restart
        self._capture = self._fresh()
        self._books = store.memo(BOOKS, (upstream,))
        self._state = store.memo(STATE, (upstream,))
        self._kind = store.memo(KIND, (upstream,))
        self._hung_up = store.memo(HUNG_UP, (upstream,))
        self._failure = ""  # why the last scrape gave nothing; "": it gave something
        self._failures = 0  # in a row
        self._hurries = 0  # in a row
        self._read_s: float | None = None
        self._judged_s: float | None = None

    def resume(self) -> None:
        """Go on where an earlier life was. Once, after the store was restored and before the first record."""
        self._mirror.resume()
        self._capture.names = BY_ENGINE.get(self._kind.data.decode("ascii", "replace"))
        if self._books.data and self._state.data:
            try:
                self._capture.load(self._books.data, self._state.data, self._hung_up.data)
            except msgspec.DecodeError:
                _log.warning("engine_books_unreadable upstream=%s", self._upstream)
                self._capture = self._fresh(self._capture.names)

    def record(self, record: RequestRecord) -> None:
        """Take a request that is booked now."""
        if self._capture.names is not None:
            if self._capture.record(record):
                self._hung_up.set(self._capture.hung_up())
            self._books.set(self._capture.books())

    async def run(self) -> None:
        """Scrape for ever."""
        try:
            while True:
                begin_s = time.monotonic()
                await self.scrape()
                pause_s = min(self._interval_s * 2**self._failures, max(MAX_PAUSE_S, self._interval_s))
                await self._pause(begin_s, begin_s + pause_s)
        finally:
            await self._scraper.close()

    async def scrape(self) -> bool:
        """Scrape once and judge what can be judged. Return whether there was a reading."""
        mark = self._capture.mark(len(self._traffic.open_ids()))
        begin_s = time.monotonic()
        try:
            body = await self._scraper.fetch()
            answered_ns, answered_wall_s = time.monotonic_ns(), self._wall()
            reading = _understood(body)
        except ScrapeError as error:
            self._failed(error.reason, str(error))
            return False
        met = self._took(reading, answered_ns / 1e9, answered_ns / 1e9 - begin_s)
        totals = self._totals(reading)
        if not met and await self._told(answered_ns):  # what was booked before we met it was not compared
            verdict = self._capture.scraped(
                mark, totals, self._traffic.open_ids(), idle=reading.idle, wall_s=answered_wall_s
            )
            self._judged(verdict)
        return True

    def refresh(self) -> None:
        """Let go of what is no longer known. Right before an exposition."""
        now_s = time.monotonic()
        if self._read_s is not None and now_s - self._read_s > STALE_SCRAPES * self._interval_s + MAX_PAUSE_S:
            self._forget()
        if self._judged_s is not None and now_s - self._judged_s > VERDICT_STALE_S:
            self._judged_s = None
            self._show_ratios((None, None))

    def close(self) -> None:
        """Show nothing more of this engine, and compare it no further: another one takes its place.

        Its counters stay, and go on if it is watched again; what it did meanwhile would be nobody's.
        """
        self._forget()
        self._show_ratios((None, None))
        for memo in (self._books, self._state, self._kind, self._hung_up):
            memo.set(b"")

    # --- one scrape

    async def _pause(self, begin_s: float, until_s: float) -> None:
        """Wait for the next scrape; not to the end where a moment of rest can be used."""
        while (left_s := until_s - time.monotonic()) > 0:
            if self._failures or self._hurries >= MAX_HURRIES:
                await asyncio.sleep(left_s)
                break
            if left_s < until_s - begin_s - HURRY_S and self._capture.wants_rest and not self._traffic.open_ids():
                self._hurries += 1
                return
            await asyncio.sleep(min(left_s, REST_POLL_S))
        self._hurries = 0

    def _took(self, reading: EngineReading, now_s: float, took_s: float) -> bool:
        """Mirror a reading, in one step: it is committed with what it is compared with. Return whether we first met."""
        if self._failure:
            _log.info("engine_metrics_readable upstream=%s engine=%s", self._upstream, reading.engine)
        self._failure, self._failures, self._read_s = "", 0, now_s
        met = self._capture.names is None or self._capture.names.engine != reading.engine
        another = met and self._capture.names is not None
        if met:
            self._meet(reading.engine)
        restarted = self._mirror.take(reading)
        if restarted:
            self._capture.engine_restarted()
            self._state.set(self._capture.state())
        if restarted or another:
            self._on_restart()
        self._store.gauge(m.ENGINE_UP, (self._upstream,)).set(1)
        self._store.gauge(m.ENGINE_SCRAPE_DURATION, (self._upstream,)).set(took_s)
        return met

    @property
    def engine(self) -> str:
        """What the engine is, "" before it was met."""
        return "" if self._capture.names is None else self._capture.names.engine

    def _meet(self, engine: str) -> None:
        """Meet an engine for the first time, or another one in its place."""
        self._capture = self._fresh(BY_ENGINE[engine])
        self._kind.set(engine.encode())
        self._remember()

    def _fresh(self, names: EngineNames | None = None) -> Capture:
        return Capture(names, gives_back=self._on_late is not None)

    def _remember(self) -> None:
        self._state.set(self._capture.state())
        self._books.set(self._capture.books())
        self._hung_up.set(self._capture.hung_up())

    def _totals(self, reading: EngineReading) -> Totals:
        comparable = BY_ENGINE[reading.engine].comparable
        prompt, completion = (self._mirror.tokens(TokenType(kind)) if kind in comparable else None for kind in TYPES)
        return prompt, completion

    async def _told(self, stamp_ns: int) -> bool:
        """Wait until the relays have told all that happened before `stamp_ns`; False if they do not in time."""
        deadline_s = time.monotonic() + max(self._interval_s, 2.0)
        while self._traffic.told_ns() < stamp_ns:
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(TELL_POLL_S)
        return True

    def _judged(self, verdict: Verdict | None) -> None:
        self._remember()
        if verdict is None:
            return
        for late in verdict.late:
            if self._on_late is not None:
                self._on_late(late)
        self._judged_s = time.monotonic()
        for kind in TYPES:
            for reason in REASONS:
                self._store.counter(m.UNBOOKED_TOKENS, (self._upstream, kind, reason))
        for index, reason, tokens in verdict.unbooked:
            self._store.counter(m.UNBOOKED_TOKENS, (self._upstream, TYPES[index], reason)).add(tokens)
        self._show_ratios(verdict.ratios)

    # --- what is not known

    def _failed(self, reason: str, message: str) -> None:
        self._store.counter(m.ENGINE_SCRAPE_FAILURES, (self._upstream, reason)).add()
        if reason != self._failure:
            _log.warning("engine_metrics_unreadable upstream=%s reason=%s fault=%s", self._upstream, reason, message)
        self._failure = reason
        self._failures = min(self._failures + 1, 16)  # 2**16 intervals are beyond any pause
        self._scraper.lost()
        self._forget()
        self._store.gauge(m.ENGINE_UP, (self._upstream,)).set(0)

    def _forget(self) -> None:
        self._read_s = None
        self._mirror.unknown()
        self._store.gauge(m.ENGINE_UP, (self._upstream,)).set(None)
        self._store.gauge(m.ENGINE_SCRAPE_DURATION, (self._upstream,)).set(None)

    def _show_ratios(self, ratios: tuple[float | None, float | None]) -> None:
        for kind, ratio in zip(TYPES, ratios, strict=True):
            self._store.gauge(m.CAPTURE_RATIO, (self._upstream, kind)).set(ratio)


def _understood(body: bytes) -> EngineReading:
    """Return what an engine's metrics say.

    Raises:
        ScrapeError: they are broken, or of no engine that we know.
    """
    try:
        reading = read(body)
    except ParseError as error:
        raise ScrapeError("malformed", str(error)) from None
    if reading is None:
        raise ScrapeError("no_metrics", "none of the names we know")
    return reading
