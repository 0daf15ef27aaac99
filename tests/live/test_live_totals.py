"""What two looks at the store say: rates, quantiles, and nothing where nothing is known."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors import metrics as m
from inferwatch_collectors.live.totals import COLUMNS, between, quantile, read, shown
from inferwatch_collectors.metric_store import MetricStore


def test_an_empty_store() -> None:
    """Sums are 0, for nothing was; money that nobody has set a price for, gauges and quantiles are unknown."""
    told = between(read(MetricStore(), 0.0), read(MetricStore(), 10.0))
    assert (told["requests"], told["in_flight"]) == (0.0, 0.0)
    assert {name for name, value in told.items() if value is None} == {
        "cost",
        "idle_cost",
        "ttft_p50",
        "ttft_p99",
        "gap_p50",
        "gap_p99",
        "waiting",
        "kv_cache",
        "gpu_utilization",
        "gpu_watts",
    }


def test_rates_between_two_looks(traffic: Any) -> None:
    """Per second; money per hour; failures are those of the engine or ours."""
    traffic.request()
    before = read(traffic.store, 100.0)
    for outcome in ("ok", "client_abort", "rejected", "stream_error", "upstream_error", "interrupted"):
        traffic.request(outcome=outcome)
    told = between(before, read(traffic.store, 106.0))
    assert (told["requests"], told["failed"]) == (1.0, 0.5)
    assert (told["prompt_tokens"], told["completion_tokens"]) == (10.0, 5.0)
    assert told["cost"] == pytest.approx(3 * 3600)
    assert 0.1 < (told["ttft_p50"] or 0) <= 0.25


def test_sums_are_those_of_metrics(traffic: Any) -> None:
    """Also the parts of tokens are not counted twice."""
    traffic.request()
    traffic.request(tenant="other", outcome="upstream_error")
    assert shown(read(traffic.store, 0.0)) == {
        "requests": 2,
        "failed": 1,
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "gpu_dollars": 6,
        "price_dollars": None,
        "idle_dollars": None,
        "joules": 0,
    }


def test_gauges(traffic: Any) -> None:
    """Of several engines the fullest cache and all queues; of several GPUs the mean and the sum."""
    for engine, waiting, cache in (("a:1", 2, 0.25), ("b:1", 3, 0.5)):
        traffic.gauge(m.ENGINE_REQUESTS_WAITING, waiting, engine)
        traffic.gauge(m.ENGINE_KV_CACHE_USAGE, cache, engine)
    for gpu, busy in (("0", 0.5), ("1", 1.0)):
        traffic.gauge(m.GPU_UTILIZATION, busy, gpu, f"GPU-{gpu}", "H100")
        traffic.gauge(m.GPU_POWER, 300.0, gpu, f"GPU-{gpu}", "H100")
    totals = read(traffic.store, 0.0)
    assert (totals.waiting, totals.kv_cache, totals.gpu_utilization, totals.gpu_watts) == (5, 0.5, 0.75, 600)


def test_a_clock_that_stands_still(traffic: Any) -> None:
    """Two looks at one moment have no rate."""
    look = read(traffic.store, 5.0)
    assert between(look, look)["requests"] is None


@given(observations=st.lists(st.floats(0.0001, 1000), min_size=1, max_size=50), q=st.floats(0.01, 1))
def test_quantiles_lie_in_the_bucket_of_the_true_one(observations: list[float], q: float) -> None:
    """They are as exact as the buckets allow."""
    store = MetricStore()
    histogram = store.histogram(m.TIME_TO_FIRST_TOKEN, ("a", "b", "c"))
    for value in observations:
        histogram.observe(value)
    found = quantile(m.TIME_TO_FIRST_TOKEN, (), histogram.counts, q)
    true = sorted(observations)[math.ceil(q * len(observations)) - 1]
    assert m.TIME_TO_FIRST_TOKEN.buckets is not None
    bounds = [0.0, *m.TIME_TO_FIRST_TOKEN.buckets.bounds, math.inf]
    place = next(n for n, bound in enumerate(bounds) if true <= bound)
    assert found is not None
    assert bounds[place - 1] <= found <= bounds[place] or found == bounds[-2]


def test_columns_are_what_is_told() -> None:
    """The history is kept by their order."""
    assert tuple(between(read(MetricStore(), 0.0), read(MetricStore(), 1.0))) == COLUMNS
