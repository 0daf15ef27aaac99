"""The engine's counters as our own: nothing lost, nothing twice, whoever restarts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors import metrics as m
from inferwatch_collectors.engine.mirror import Mirror
from inferwatch_collectors.engine.normalise import EngineReading
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.metrics import TABLE, TokenType

UP = "engine:8000"


def reading(**fields: Any) -> EngineReading:
    return EngineReading(**{"engine": "vllm", **fields})


def completion(store: MetricStore) -> float:
    return store.counter(m.ENGINE_TOKENS, (UP, "completion")).value


def restarts(store: MetricStore) -> float:
    return store.counter(m.ENGINE_RESTARTS, (UP,)).value


def next_life(store: MetricStore) -> tuple[MetricStore, Mirror]:
    """A collector that starts with what this one had committed."""
    fresh = MetricStore(TABLE)
    store.touch_all()
    fresh.restore(store.take_dirty())
    mirror = Mirror(fresh, UP)
    mirror.resume()
    return fresh, mirror


def test_equals_the_engine(store: MetricStore) -> None:
    """Our counters equal the engine's, from the first scrape on; gauges are its gauges."""
    mirror = Mirror(store, UP)
    for prompt, tokens in ((100, 7), (100, 7), (230, 19)):
        mirror.take(
            reading(
                prompt_tokens=prompt, completion_tokens=tokens, cached_tokens=3, preemptions=1, requests_running=2,
                requests_waiting=5, kv_cache_usage_ratio=0.5, prefix_cache_queries=prompt, prefix_cache_hits=3,
            )
        )  # fmt: skip
        assert store.counter(m.ENGINE_TOKENS, (UP, "prompt")).value == prompt
        assert completion(store) == mirror.tokens(TokenType.COMPLETION) == tokens
    assert store.counter(m.ENGINE_TOKENS, (UP, "cached")).value == 3
    assert store.counter(m.ENGINE_PREEMPTIONS, (UP,)).value == 1
    assert store.counter(m.ENGINE_PREFIX_CACHE_QUERIES, (UP,)).value == 230
    assert store.counter(m.ENGINE_PREFIX_CACHE_HITS, (UP,)).value == 3
    assert store.gauge(m.ENGINE_REQUESTS_RUNNING, (UP,)).value == 2
    assert store.gauge(m.ENGINE_REQUESTS_WAITING, (UP,)).value == 5
    assert store.gauge(m.ENGINE_KV_CACHE_USAGE, (UP,)).value == 0.5
    assert store.gauge(m.ENGINE_INFO, (UP, "vllm")).value == 1
    assert restarts(store) == 0


def test_what_is_not_told_is_absent(store: MetricStore) -> None:
    """An engine that does not count something gets no series for it, not one with 0."""
    mirror = Mirror(store, UP)
    mirror.take(reading(completion_tokens=7))
    assert store.series(m.ENGINE_TOKENS) == [(UP, "completion")]
    assert store.series(m.ENGINE_PREEMPTIONS) == []
    assert mirror.tokens(TokenType.PROMPT) is None
    assert store.gauge(m.ENGINE_REQUESTS_RUNNING, (UP,)).value is None


def test_unknown(store: MetricStore) -> None:
    """After a failed scrape the present is not known; the sums stay."""
    mirror = Mirror(store, UP)
    mirror.take(reading(completion_tokens=7, requests_running=1))
    mirror.unknown()
    assert store.gauge(m.ENGINE_REQUESTS_RUNNING, (UP,)).value is None
    assert store.gauge(m.ENGINE_INFO, (UP, "vllm")).value is None
    assert completion(store) == 7


@pytest.mark.parametrize(
    ("before", "after", "expected", "restarted"),
    [
        # (start, count): a new process has counted from 0, whether that shows or not
        ((1000.0, 50), (2000.0, 10), 60, 1),
        ((1000.0, 50), (2000.0, 80), 130, 1),
        ((1000.0, 50), (1000.6, 80), 80, 0),  # the clock was set, the process is the same
        ((1000.0, 50), (1000.0, 30), 50, 0),  # an instance was taken away
        ((None, 50), (None, 30), 80, 1),
        ((None, 50), (None, 80), 80, 0),
        ((1000.0, 50), (None, 80), 80, 0),
    ],
)
def test_restarts_of_the_engine(
    store: MetricStore,
    before: tuple[float | None, int],
    after: tuple[float | None, int],
    expected: int,
    restarted: int,
) -> None:
    """A new process's counts are added whole; a count that merely fell is followed."""
    mirror = Mirror(store, UP)
    mirror.take(reading(started_s=before[0], completion_tokens=before[1]))
    assert mirror.take(reading(started_s=after[0], completion_tokens=after[1])) is bool(restarted)
    assert completion(store) == expected
    assert restarts(store) == restarted


def test_our_restart_neither_doubles_nor_loses(store: MetricStore) -> None:
    """After a restart of ours the engine's count goes on from what was committed."""
    Mirror(store, UP).take(reading(started_s=1.0, completion_tokens=50))
    store, mirror = next_life(store)
    assert completion(store) == 50
    mirror.take(reading(started_s=1.0, completion_tokens=70))
    assert completion(store) == 70
    assert restarts(store) == 0


def test_both_restart(store: MetricStore) -> None:
    """An engine that began anew while we were away is noticed."""
    Mirror(store, UP).take(reading(started_s=1.0, completion_tokens=50))
    store, mirror = next_life(store)
    assert mirror.take(reading(started_s=100.0, completion_tokens=60))
    assert completion(store) == 110
    assert restarts(store) == 1


def test_a_memo_that_cannot_be_read(store: MetricStore) -> None:
    """What an incompatible version wrote keeps nobody from starting."""
    store.memo("engine_raw", (UP,)).set(b"\xc1nonsense")
    mirror = Mirror(store, UP)
    mirror.resume()
    mirror.take(reading(completion_tokens=5))
    assert completion(store) == 5


@given(st.lists(st.tuples(st.sampled_from(["engine", "ours", "tokens"]), st.integers(0, 1000)), max_size=30))
def test_sums_whatever_happens(events: list[tuple[str, int]]) -> None:
    """With any mixture of restarts the counter is the sum of all that the engine's lives had counted when read."""
    store = MetricStore(TABLE)
    mirror = Mirror(store, UP)
    life, count, read = 1, 0, 0
    for kind, tokens in events:
        if kind == "engine":
            life, count = life + 1, tokens
            read += tokens
        elif kind == "ours":
            store, mirror = next_life(store)
            continue
        else:
            count += tokens
            read += tokens
        mirror.take(reading(started_s=1000.0 * life, completion_tokens=count))
        assert completion(store) == read
