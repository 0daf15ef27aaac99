"""One engine watched: what it says, what we say when it says nothing, and what survives."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inferwatch.record import LateCount, Outcome, RequestRecord, TokenSource
from inferwatch_collectors import metrics as m
from inferwatch_collectors.engine import monitor as monitor_module
from inferwatch_collectors.engine.monitor import VERDICT_STALE_S, EngineMonitor
from inferwatch_collectors.engine.scraper import ScrapeError, Target
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.metrics import TABLE

UP = "engine:8000"


class Traffic:
    """What the collector would say: nothing open, and all told."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.silent = False

    def open_ids(self) -> frozenset[str]:
        return frozenset(self.open)

    def told_ns(self) -> int:
        return 0 if self.silent else time.monotonic_ns()


class Engine:
    """In place of the scraper: an engine's text, or a failure."""

    def __init__(self) -> None:
        self.prompt = self.completion = self.running = 0
        self.started_s = 1000.0
        self.failure: str | None = None
        self.body: bytes | None = None
        self.fetches = 0
        self.closed = False

    async def fetch(self) -> bytes:
        self.fetches += 1
        if self.failure:
            raise ScrapeError(self.failure, "told to")
        if self.body is not None:
            return self.body
        return (
            f"process_start_time_seconds {self.started_s}\nvllm:num_requests_running {self.running}\n"
            f"vllm:prompt_tokens_total {self.prompt}\nvllm:generation_tokens_total {self.completion}\n"
        ).encode()

    def lost(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True


class Watched:
    """A monitor of a scripted engine."""

    def __init__(self, store: MetricStore, engine: Engine, traffic: Traffic) -> None:
        self.store, self.engine, self.traffic = store, engine, traffic
        self.late: list[LateCount] = []
        self.monitor = EngineMonitor(
            store,
            UP,
            Target(upstream_url="http://engine:8000"),
            traffic,
            interval_s=0.01,
            on_late=self.late.append,
        )
        self.monitor._scraper = engine  # type: ignore[assignment]
        self.monitor.resume()

    def value(self, metric: Any, *labels: str) -> float | None:
        store = self.store.gauge if metric.kind is m.Kind.GAUGE else self.store.counter
        return store(metric, (UP, *labels)).value

    def works(self, prompt: int, completion: int) -> None:
        self.engine.prompt += prompt
        self.engine.completion += completion

    async def settle(self) -> None:
        """Until the first anchor: met, at rest, at rest again."""
        for _ in range(3):
            assert await self.monitor.scrape()

    def next_life(self) -> "Watched":
        """A collector that starts with what this one had committed."""
        store = MetricStore(TABLE)
        self.store.touch_all()
        store.restore(self.store.take_dirty())
        return Watched(store, self.engine, self.traffic)


@pytest.fixture
def watched(store: MetricStore) -> Iterator[Watched]:
    return Watched(store, Engine(), Traffic())


async def test_a_reading(watched: Watched) -> None:
    """What the engine says is exported, with its kind and how long it took."""
    watched.works(30, 7)
    watched.engine.running = 2
    assert await watched.monitor.scrape()
    assert watched.value(m.ENGINE_UP) == 1
    assert watched.value(m.ENGINE_INFO, "vllm") == 1
    assert watched.value(m.ENGINE_REQUESTS_RUNNING) == 2
    assert watched.value(m.ENGINE_TOKENS, "prompt") == 30
    assert watched.value(m.ENGINE_TOKENS, "completion") == 7
    assert watched.value(m.ENGINE_SCRAPE_DURATION) is not None
    assert watched.value(m.CAPTURE_RATIO, "prompt") is None


async def test_capture(watched: Watched, record: Callable[..., RequestRecord]) -> None:
    """Closed traffic is 1 exactly; 100 tokens around the proxy show at the next scrape, as bypass."""
    await watched.settle()
    watched.works(10, 5)
    watched.monitor.record(record())
    await watched.monitor.scrape()
    assert watched.value(m.CAPTURE_RATIO, "prompt") == 1.0
    assert watched.value(m.CAPTURE_RATIO, "completion") == 1.0
    assert watched.value(m.UNBOOKED_TOKENS, "completion", "bypass") == 0
    watched.works(0, 100)
    await watched.monitor.scrape()
    assert watched.value(m.CAPTURE_RATIO, "prompt") == 1.0
    assert watched.value(m.CAPTURE_RATIO, "completion") == 1 - 100 / 105
    assert watched.value(m.UNBOOKED_TOKENS, "completion", "bypass") == 100


async def test_before_the_first_reading_nothing_is_booked(
    watched: Watched, record: Callable[..., RequestRecord]
) -> None:
    """Requests of a time when the engine could not be read count neither for nor against it."""
    watched.engine.failure = "connect"
    await watched.monitor.scrape()
    watched.monitor.record(record())
    watched.works(10, 5)
    watched.engine.failure = None
    await watched.settle()
    watched.works(10, 5)
    watched.monitor.record(record("b"))
    await watched.monitor.scrape()
    assert watched.value(m.CAPTURE_RATIO, "completion") == 1.0


@pytest.mark.parametrize(
    ("failure", "body", "reason"),
    [
        ("timeout", None, "timeout"),
        ("connect", None, "connect"),
        (None, b"vllm:prompt_tokens_total x\n", "malformed"),
        (None, b"python_info 1\n", "no_metrics"),
    ],
)
async def test_no_reading(watched: Watched, failure: str | None, body: bytes | None, reason: str) -> None:
    """Without a reading the present is absent, not 0 and not the last one; the failure is counted."""
    await watched.settle()
    watched.engine.failure, watched.engine.body = failure, body
    assert not await watched.monitor.scrape()
    assert watched.value(m.ENGINE_UP) == 0
    assert watched.value(m.ENGINE_REQUESTS_RUNNING) is None
    assert watched.value(m.ENGINE_INFO, "vllm") is None
    assert watched.value(m.ENGINE_SCRAPE_DURATION) is None
    assert watched.value(m.ENGINE_SCRAPE_FAILURES, reason) == 1
    watched.engine.failure = watched.engine.body = None
    assert await watched.monitor.scrape()
    assert watched.value(m.ENGINE_UP) == 1


async def test_logged_once(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """A failure that goes on is one line, and so is its end."""
    caplog.set_level("INFO")
    watched.engine.failure = "connect"
    for _ in range(5):
        await watched.monitor.scrape()
    watched.engine.failure = None
    await watched.monitor.scrape()
    await watched.monitor.scrape()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_relays_that_have_not_told_yet(
    watched: Watched, record: Callable[..., RequestRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scrape is compared only when the relays have told all that came before it: else nothing is said."""
    await watched.settle()
    watched.works(10, 5)
    watched.traffic.silent = True
    now_s = time.monotonic()
    monkeypatch.setattr(monitor_module.time, "monotonic", lambda: now_s)

    async def pass_time(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    monkeypatch.setattr(monitor_module.asyncio, "sleep", pass_time)
    assert await watched.monitor.scrape()
    assert watched.value(m.CAPTURE_RATIO, "completion") is None
    watched.traffic.silent = False
    watched.monitor.record(record())
    await watched.monitor.scrape()
    assert watched.value(m.CAPTURE_RATIO, "completion") == 1.0


async def test_our_restart(watched: Watched, record: Callable[..., RequestRecord]) -> None:
    """The comparison goes on after a restart: nothing booked is forgotten, nothing is counted twice."""
    await watched.settle()
    watched.works(10, 5)
    watched.monitor.record(record())
    watched = watched.next_life()
    await watched.monitor.scrape()
    assert watched.value(m.CAPTURE_RATIO, "completion") == 1.0
    watched.works(0, 100)
    await watched.monitor.scrape()
    watched = watched.next_life()
    assert watched.value(m.CAPTURE_RATIO, "completion") is None
    assert watched.value(m.UNBOOKED_TOKENS, "completion", "bypass") == 100
    await watched.monitor.scrape()
    assert watched.value(m.UNBOOKED_TOKENS, "completion", "bypass") == 100
    assert watched.value(m.ENGINE_TOKENS, "completion") == 105


async def test_records_before_the_first_scrape_of_a_new_life(
    watched: Watched, record: Callable[..., RequestRecord]
) -> None:
    """What relays tell again after a restart, before the engine was read, is in the comparison."""
    await watched.settle()
    watched.works(10, 5)
    watched = watched.next_life()
    watched.monitor.record(record())
    await watched.monitor.scrape()
    assert watched.value(m.CAPTURE_RATIO, "completion") == 1.0
    assert watched.value(m.UNBOOKED_TOKENS, "completion", "bypass") == 0


async def test_memos_that_cannot_be_read(watched: Watched) -> None:
    """What an incompatible version wrote is left behind; the comparison begins anew."""
    await watched.settle()
    watched.store.memo("engine_books", (UP,)).set(b"\xc1")
    watched = watched.next_life()
    await watched.settle()
    watched.works(0, 10)
    await watched.monitor.scrape()
    assert watched.value(m.UNBOOKED_TOKENS, "completion", "bypass") == 10


async def test_an_engine_that_restarts(watched: Watched, record: Callable[..., RequestRecord]) -> None:
    """A restart is counted; the sums go on; nothing is called missing or too much because of it."""
    await watched.settle()
    watched.works(10, 5)
    watched.monitor.record(record())
    await watched.monitor.scrape()
    watched.monitor.record(record("unread"))  # the engine counted it and went before a scrape
    watched.engine.started_s, watched.engine.prompt, watched.engine.completion = 2000.0, 10, 5
    watched.monitor.record(record("after"))
    await watched.monitor.scrape()
    assert watched.value(m.ENGINE_RESTARTS) == 1
    assert watched.value(m.ENGINE_TOKENS, "completion") == 10
    assert watched.value(m.CAPTURE_RATIO, "completion") == 1.0
    assert watched.value(m.UNBOOKED_TOKENS, "completion", "bypass") == 0


async def test_run_backs_off_and_closes(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failure in a row doubles the pause, up to a bound; the end closes the connections."""
    pauses: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) >= 20:
            raise asyncio.CancelledError
        await real_sleep(0)

    monkeypatch.setattr(monitor_module.asyncio, "sleep", sleep)
    watched.engine.failure = "connect"
    with pytest.raises(asyncio.CancelledError):
        await watched.monitor.run()
    assert pauses[4] > 4 * pauses[1]
    assert max(pauses) <= monitor_module.MAX_PAUSE_S
    assert watched.engine.closed


async def test_what_is_old_goes(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading that is not renewed, and a verdict of 15 minutes ago, are no longer known."""
    await watched.settle()
    watched.works(0, 1)
    await watched.monitor.scrape()
    watched.monitor.refresh()
    assert watched.value(m.ENGINE_UP) == 1
    assert watched.value(m.CAPTURE_RATIO, "completion") == 0.0
    later_s = time.monotonic() + VERDICT_STALE_S + 1
    monkeypatch.setattr(monitor_module.time, "monotonic", lambda: later_s)
    watched.monitor.refresh()
    assert watched.value(m.ENGINE_UP) is None
    assert watched.value(m.ENGINE_REQUESTS_RUNNING) is None
    assert watched.value(m.CAPTURE_RATIO, "completion") is None


async def test_closed(watched: Watched) -> None:
    """An engine that is no longer configured shows nothing of the present; what it does meanwhile is no bypass."""
    await watched.settle()
    watched.monitor.close()
    for metric in (m.ENGINE_UP, m.ENGINE_REQUESTS_RUNNING, m.ENGINE_SCRAPE_DURATION):
        assert watched.value(metric) is None
    watched.works(0, 500)
    again = Watched(watched.store, watched.engine, watched.traffic)
    await again.settle()
    await again.monitor.scrape()
    assert again.value(m.ENGINE_TOKENS, "completion") == 500
    assert again.value(m.UNBOOKED_TOKENS, "completion", "bypass") == 0


HUNG_UP = {
    "outcome": Outcome.CLIENT_ABORT, "token_source": TokenSource.NONE, "prompt_tokens": None, "completion_tokens": None,
}  # fmt: skip


def given(watched: Watched) -> list[tuple[str, int | None, int | None]]:
    return [(late.request_id, late.prompt_tokens, late.completion_tokens) for late in watched.late]


async def test_hung_up_requests_get_their_tokens(watched: Watched, record: Callable[..., RequestRecord]) -> None:
    """At rest, at the latest after two scrapes; nothing is unbooked or missing then."""
    await watched.settle()
    watched.works(10, 60)
    watched.monitor.record(record("a", **HUNG_UP))
    await watched.monitor.scrape()
    await watched.monitor.scrape()
    assert given(watched) == [("a", 10, 60)]
    assert watched.value(m.UNBOOKED_TOKENS, "completion", "cut") == 0
    assert watched.value(m.CAPTURE_RATIO, "completion") == 1.0


async def test_hung_up_requests_of_an_earlier_life(watched: Watched, record: Callable[..., RequestRecord]) -> None:
    """Who waits is committed with the record, who has got something with what is counted of it."""
    await watched.settle()
    watched.monitor.record(record("a", **HUNG_UP))
    watched.works(10, 60)
    watched = watched.next_life()
    for _ in range(2):
        await watched.monitor.scrape()
    assert given(watched) == [("a", 10, 60)]
    watched = watched.next_life()
    for _ in range(3):
        await watched.monitor.scrape()
    assert given(watched) == []
    assert watched.value(m.UNBOOKED_TOKENS, "completion", "cut") == 0


async def test_nobody_takes_late_counts(
    store: MetricStore, watched: Watched, record: Callable[..., RequestRecord]
) -> None:
    """Then they are not held back: all that hung-up requests had is unbooked."""
    watched.monitor = EngineMonitor(store, UP, Target(upstream_url="http://engine:8000"), watched.traffic)
    watched.monitor._scraper = watched.engine  # type: ignore[assignment]
    watched.monitor.resume()
    await watched.settle()
    watched.works(10, 60)
    watched.monitor.record(record("a", **HUNG_UP))
    await watched.monitor.scrape()
    assert watched.value(m.UNBOOKED_TOKENS, "completion", "cut") == 60


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ends_s: float) -> None:
        self.begin_s = self.now_s = time.monotonic()
        self.ends_s = self.begin_s + ends_s
        self.scrapes: list[float] = []
        monkeypatch.setattr(monitor_module.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(monitor_module.asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s >= self.ends_s:
            raise asyncio.CancelledError

    async def scrape(self) -> bool:
        self.scrapes.append(round(self.now_s - self.begin_s, 3))
        return True


@pytest.mark.parametrize(
    ("is_open", "scrapes"),
    [
        pytest.param(False, [0.0, 1.25, 2.5, 3.75, 8.75, 10.0, 11.25, 12.5, 17.5], id="at rest"),
        pytest.param(True, [0.0, 5.0, 10.0, 15.0], id="under load"),
    ],
)
async def test_a_moment_of_rest_is_used(
    watched: Watched,
    record: Callable[..., RequestRecord],
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_open: bool,
    scrapes: list[float],
) -> None:
    """While somebody waits for tokens and nothing is open, scrapes come sooner; a few in a row, then a pause."""
    await watched.settle()
    watched.monitor.record(record("a", **HUNG_UP))
    watched.traffic.open = {"b"} if is_open else set()
    clock = Clock(monkeypatch, ends_s=18.0)
    watched.monitor._interval_s = 5.0
    monkeypatch.setattr(watched.monitor, "scrape", clock.scrape)
    with pytest.raises(asyncio.CancelledError):
        await watched.monitor.run()
    assert clock.scrapes == scrapes


async def test_nobody_waits(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the interval is kept, also at rest."""
    await watched.settle()
    clock = Clock(monkeypatch, ends_s=11.0)
    watched.monitor._interval_s = 5.0
    monkeypatch.setattr(watched.monitor, "scrape", clock.scrape)
    with pytest.raises(asyncio.CancelledError):
        await watched.monitor.run()
    assert clock.scrapes == [0.0, 5.0, 10.0]
