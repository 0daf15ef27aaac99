"""Which engine is watched, by the configuration."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from inferwatch.config import Config
from inferwatch.record import LateCount, RequestRecord
from inferwatch.settings.canary import Canary
from inferwatch.settings.drift import Drift
from inferwatch.settings.engine_metrics import EngineMetrics
from inferwatch.settings.traffic import Upstream
from inferwatch.tasks import TaskSet
from inferwatch_collectors import metrics as m
from inferwatch_collectors.engine import watch as watch_module
from inferwatch_collectors.engine.said import Said
from inferwatch_collectors.engine.watch import EngineWatch
from inferwatch_collectors.metric_store import MetricStore


class Traffic:
    """Nothing open, nothing told."""

    def open_ids(self) -> frozenset[str]:
        return frozenset()

    def told_ns(self) -> int:
        return 0


@pytest.fixture
async def tasks() -> AsyncIterator[TaskSet]:
    def failed(name: str, error: BaseException) -> None:
        raise AssertionError(name) from error

    tasks = TaskSet(failed)
    yield tasks
    await tasks.close()


def configured(port: int, **changes: Any) -> Config:
    """An engine that nobody runs, scraped often."""
    section = EngineMetrics(**{"interval_s": 0.1, **changes})
    return Config(upstream=Upstream(url=f"http://127.0.0.1:{port}"), engine_metrics=section)


async def failures(store: MetricStore, upstream: str, above: float = 0) -> float:
    """Wait for a scrape of `upstream` that failed."""
    counter = store.counter(m.ENGINE_SCRAPE_FAILURES, (upstream, "connect"))
    async with asyncio.timeout(20):
        while counter.value <= above:
            await asyncio.sleep(0.01)
    return counter.value


async def test_it_is_watched(store: MetricStore, tasks: TaskSet, free_port: Callable[[], int]) -> None:
    """From the start on the engine is scraped."""
    port = free_port()
    watch = EngineWatch(store, Traffic(), tasks)
    watch.start(configured(port), f"127.0.0.1:{port}")
    await failures(store, f"127.0.0.1:{port}")
    assert store.gauge(m.ENGINE_UP, (f"127.0.0.1:{port}",)).value == 0


async def test_switched_off(
    store: MetricStore, tasks: TaskSet, free_port: Callable[[], int], record: Callable[..., RequestRecord]
) -> None:
    """With `engine_metrics.enabled` off nothing is scraped, and no series is there."""
    watch = EngineWatch(store, Traffic(), tasks)
    watch.start(configured(free_port(), enabled=False), "engine:1")
    watch.record(record())
    watch.refresh()
    await asyncio.sleep(0)
    assert store.series(m.ENGINE_UP) == []
    assert store.series(m.ENGINE_SCRAPE_FAILURES) == []


async def test_what_the_engine_is(store: MetricStore, tasks: TaskSet, free_port: Callable[[], int]) -> None:
    """As it is configured, also where nobody scrapes it; otherwise not known before it was met."""
    config = configured(free_port(), enabled=False)
    watch = EngineWatch(store, Traffic(), tasks)
    assert watch.engine == ""
    watch.start(config, "engine:1")
    assert watch.engine == ""
    told = msgspec.structs.replace(config.upstream, engine="sglang")
    watch.reconfigure(msgspec.structs.replace(config, upstream=told), "engine:1")
    assert watch.engine == "sglang"


async def test_another_engine(store: MetricStore, tasks: TaskSet, free_port: Callable[[], int]) -> None:
    """After a reload with another upstream that is scraped, and the old one no longer has a present."""
    first, second = free_port(), free_port()
    watch = EngineWatch(store, Traffic(), tasks)
    watch.start(configured(first), f"127.0.0.1:{first}")
    seen = await failures(store, f"127.0.0.1:{first}")
    watch.reconfigure(configured(first), f"127.0.0.1:{first}")
    await failures(store, f"127.0.0.1:{first}", seen)
    watch.reconfigure(configured(second), f"127.0.0.1:{second}")
    await failures(store, f"127.0.0.1:{second}")
    assert store.gauge(m.ENGINE_UP, (f"127.0.0.1:{first}",)).value is None
    watch.reconfigure(configured(second, enabled=False), f"127.0.0.1:{second}")
    assert store.gauge(m.ENGINE_UP, (f"127.0.0.1:{second}",)).value is None


class Doubting:
    """Counts doubts, and what it is told."""

    def __init__(self) -> None:
        self.doubts = 0
        self.heard: list[Said | None] = []

    def asking(self) -> int:
        return 7

    def told(self, mark: int, said: Said) -> None:
        assert mark == 7
        self.heard.append(said)

    def silent(self) -> None:
        self.heard.append(None)

    def doubt(self) -> None:
        self.doubts += 1


async def test_who_needs_it_has_the_engine_asked_what_it_is(
    store: MetricStore, tasks: TaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary and drift; without both the engine has two requests a minute less."""
    asked: list[tuple[str, bool]] = []

    class Asking:
        said = Said("0.32.0")
        soon = 0

        def __init__(self, config: Config, key: str = "", listener: object = None) -> None:
            asked.append((config.upstream.url, listener is not None))

        async def run(self) -> None:
            await asyncio.Event().wait()

        def ask_soon(self) -> None:
            self.soon += 1

    monkeypatch.setattr(watch_module, "EngineSaid", Asking)
    config = msgspec.structs.replace(configured(1, enabled=False), drift=Drift(enabled=False))
    without = EngineWatch(store, Traffic(), tasks, changes=Doubting())
    without.start(config, "engine:1")
    without.ask_soon()
    assert (asked, without.said) == ([], Said())
    canary = EngineWatch(store, Traffic(), tasks, changes=Doubting())
    canary.start(msgspec.structs.replace(config, canary=Canary(enabled=True)), "engine:1")
    drift = EngineWatch(store, Traffic(), tasks, changes=Doubting())
    drift.start(msgspec.structs.replace(config, drift=Drift()), "engine:1")
    drift.ask_soon()
    assert asked == [("http://127.0.0.1:1", False), ("http://127.0.0.1:1", True)]
    assert canary.said == Said("0.32.0")


async def test_an_engine_that_was_away_or_is_another_one_is_doubted(
    store: MetricStore, tasks: TaskSet, free_port: Callable[[], int]
) -> None:
    """When it goes and when it comes back, and when the configuration names another one; not while nothing happens."""
    changes = Doubting()
    watch = EngineWatch(store, Traffic(), tasks, changes=changes)
    watch.start(configured(free_port()), "engine:1")
    for up, doubts in ((None, 0), (True, 0), (True, 0), (False, 1), (False, 1), (True, 2), (True, 2)):
        watch.reachable(up)
        assert changes.doubts == doubts
    watch.reconfigure(configured(free_port()), "engine:2")
    assert changes.doubts == 3


async def test_late_counts_are_passed_on(
    store: MetricStore, tasks: TaskSet, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever books late counts gets those of each engine that is watched."""
    takers: list[Any] = []
    real = watch_module.EngineMonitor

    def made(*args: Any, on_late: Any, **kwargs: Any) -> Any:
        takers.append(on_late)
        return real(*args, on_late=on_late, **kwargs)

    def book(late: LateCount) -> None:
        raise AssertionError(late)

    monkeypatch.setattr(watch_module, "EngineMonitor", made)
    watch = EngineWatch(store, Traffic(), tasks, book)
    watch.start(configured(free_port()), "engine:1")
    watch.reconfigure(configured(free_port()), "engine:2")
    assert takers == [book, book]
