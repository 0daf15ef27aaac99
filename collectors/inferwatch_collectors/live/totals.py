"""One look at the metric store: sums that only grow, and gauges; and what two looks say about the time between. Pure.

Unknown stays unknown: a gauge without a series is None, a quantile of no observations is None.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from inferwatch.record import Outcome
from inferwatch_collectors import metrics as m
from inferwatch_collectors.metric_store import Histogram, MetricStore
from inferwatch_collectors.metrics import Metric

SECONDS_PER_HOUR: Final = 3600.0

# The engine or we failed; a client that leaves, or is refused, did not suffer a fault.
FAILED: Final = frozenset({Outcome.UPSTREAM_ERROR, Outcome.STREAM_ERROR, Outcome.INTERRUPTED})

_OUTCOME: Final = m.REQUESTS.labels.index("outcome")
_TYPE: Final = m.TOKENS.labels.index("type")
_BASIS: Final = m.COST_DOLLARS.labels.index("basis")


class Totals(NamedTuple):
    """Sums since the beginning, and gauges of this moment. Money in dollars, None where nothing has a
    price; histograms as counts per bucket."""

    at_s: float  # CLOCK_MONOTONIC
    requests: float
    failed: float
    prompt_tokens: float
    completion_tokens: float
    gpu_dollars: float | None
    price_dollars: float | None
    idle_dollars: float | None
    joules: float
    ttft: tuple[int, ...]
    gaps: tuple[int, ...]
    in_flight: float
    waiting: float | None
    kv_cache: float | None
    gpu_utilization: float | None
    gpu_watts: float | None


def read(store: MetricStore, at_s: float) -> Totals:
    """Look at the store."""
    by_outcome = grouped(store, m.REQUESTS, _OUTCOME)
    by_type = grouped(store, m.TOKENS, _TYPE)
    dollars = grouped(store, m.COST_DOLLARS, _BASIS)
    return Totals(
        at_s=at_s,
        requests=sum(by_outcome.values()),
        failed=sum(by_outcome.get(outcome, 0.0) for outcome in FAILED),
        prompt_tokens=by_type.get("prompt", 0.0),
        completion_tokens=by_type.get("completion", 0.0),
        gpu_dollars=dollars.get("gpu"),
        price_dollars=dollars.get("price"),
        idle_dollars=_sum(store, m.IDLE_COST_DOLLARS),
        joules=(_sum(store, m.ENERGY_JOULES) or 0.0) + (_sum(store, m.IDLE_ENERGY_JOULES) or 0.0),
        ttft=_counts(store, m.TIME_TO_FIRST_TOKEN),
        gaps=_counts(store, m.INTER_TOKEN_LATENCY),
        in_flight=_sum(store, m.REQUESTS_IN_FLIGHT) or 0.0,
        waiting=_sum(store, m.ENGINE_REQUESTS_WAITING),
        kv_cache=_largest(store, m.ENGINE_KV_CACHE_USAGE),
        gpu_utilization=_mean(store, m.GPU_UTILIZATION),
        gpu_watts=_sum(store, m.GPU_POWER),
    )


def values(store: MetricStore, metric: Metric) -> list[tuple[tuple[str, ...], float]]:
    """Return (label values, value in the metric's unit) of each series of a counter or gauge that has a value."""
    found = []
    for labels, series in store.family(metric).children.items():
        assert not isinstance(series, Histogram)
        value = series.value
        if value is not None:
            found.append((labels, value / metric.scale))
    return found


def grouped(store: MetricStore, metric: Metric, place: int) -> dict[str, float]:
    """Return the sums of a counter or gauge by the label at `place`."""
    found: dict[str, float] = {}
    for labels, value in values(store, metric):
        found[labels[place]] = found.get(labels[place], 0.0) + value
    return found


def _sum(store: MetricStore, metric: Metric) -> float | None:
    found = [value for _, value in values(store, metric)]
    return sum(found) if found else None


def _largest(store: MetricStore, metric: Metric) -> float | None:
    return max((value for _, value in values(store, metric)), default=None)


def _mean(store: MetricStore, metric: Metric) -> float | None:
    found = [value for _, value in values(store, metric)]
    return sum(found) / len(found) if found else None


def _counts(store: MetricStore, metric: Metric) -> tuple[int, ...]:
    assert metric.buckets is not None
    each = counts_by(store, metric, 0).values()
    return tuple(map(sum, zip(*each, strict=True))) if each else (0,) * (len(metric.buckets.bounds) + 1)


def counts_by(store: MetricStore, metric: Metric, place: int) -> dict[str, list[int]]:
    """Return the counts per bucket of a histogram, added up by the label at `place`."""
    found: dict[str, list[int]] = {}
    for labels, series in store.family(metric).children.items():
        assert isinstance(series, Histogram)
        have = found.get(labels[place])
        counts = series.counts
        found[labels[place]] = list(counts) if have is None else [a + b for a, b in zip(have, counts, strict=True)]
    return found


def between(old: Totals, new: Totals) -> dict[str, float | None]:
    """Return the rates and quantiles between two looks, with the gauges of the second."""
    seconds = new.at_s - old.at_s

    def rate(name: str) -> float | None:
        after: float | None = getattr(new, name)
        if after is None or seconds <= 0:
            return None
        return max(0.0, after - (getattr(old, name) or 0.0)) / seconds

    def hourly(name: str) -> float | None:
        per_second = rate(name)
        return None if per_second is None else per_second * SECONDS_PER_HOUR

    return {
        "requests": rate("requests"),
        "failed": rate("failed"),
        "prompt_tokens": rate("prompt_tokens"),
        "completion_tokens": rate("completion_tokens"),
        "cost": hourly("gpu_dollars"),
        "idle_cost": hourly("idle_dollars"),
        "ttft_p50": quantile(m.TIME_TO_FIRST_TOKEN, old.ttft, new.ttft, 0.5),
        "ttft_p99": quantile(m.TIME_TO_FIRST_TOKEN, old.ttft, new.ttft, 0.99),
        "gap_p50": quantile(m.INTER_TOKEN_LATENCY, old.gaps, new.gaps, 0.5),
        "gap_p99": quantile(m.INTER_TOKEN_LATENCY, old.gaps, new.gaps, 0.99),
        "in_flight": new.in_flight,
        "waiting": new.waiting,
        "kv_cache": new.kv_cache,
        "gpu_utilization": new.gpu_utilization,
        "gpu_watts": new.gpu_watts,
    }


def quantile(metric: Metric, old: Sequence[int], new: Sequence[int], q: float) -> float | None:
    """Return the q-quantile of what was observed between two counts per bucket, as histogram_quantile() does.

    Linear within a bucket; above the last bound, that bound. None if nothing was observed. An empty `old` is all zeros.
    """
    assert metric.buckets is not None
    grown = [max(0, after - before) for before, after in zip_longest(old, new, fillvalue=0)]
    rank, seen, lower = q * sum(grown), 0, 0.0
    if rank <= 0:
        return None
    for bound, count in zip(metric.buckets.bounds, grown, strict=False):
        if count and seen + count >= rank:
            return lower + (bound - lower) * (rank - seen) / count
        seen += count
        lower = bound
    return lower


def shown(totals: Totals) -> Mapping[str, Any]:
    """Return the sums as the page shows them: the same as on `/metrics` at that moment."""
    return {
        "requests": totals.requests,
        "failed": totals.failed,
        "prompt_tokens": totals.prompt_tokens,
        "completion_tokens": totals.completion_tokens,
        "gpu_dollars": totals.gpu_dollars,
        "price_dollars": totals.price_dollars,
        "idle_dollars": totals.idle_dollars,
        "joules": totals.joules,
    }


# Names of what `between` tells.
COLUMNS: Final = tuple(between(*[read(MetricStore(), 0.0)] * 2))
