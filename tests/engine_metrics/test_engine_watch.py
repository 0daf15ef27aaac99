"""Which engine is watched, by the configuration."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from inferwatch.config import Config
from inferwatch.record import LateCount, RequestRecord
from inferwatch.settings.canary import Canary
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


async def test_only_the_canary_asks_who_the_engine_is(
    store: MetricStore, tasks: TaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else needs it: two requests a minute less."""
    asked: list[str] = []

    class Asking:
        said = Said("0.32.0")

        def __init__(self, config: Config, key: str = "") -> None:
            asked.append(config.upstream.url)

        async def run(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(watch_module, "EngineSaid", Asking)
    without = EngineWatch(store, Traffic(), tasks)
    config = configured(1, enabled=False)
    assert config.drift.enabled
    without.start(config, "engine:1")
    assert (asked, without.said) == ([], Said())
    with_it = EngineWatch(store, Traffic(), tasks)
    with_it.start(msgspec.structs.replace(config, canary=Canary(enabled=True)), "engine:1")
    assert (asked, with_it.said) == (["http://127.0.0.1:1"], Said("0.32.0"))


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
