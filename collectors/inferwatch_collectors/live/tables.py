"""The page's tables, from the store and from what is open: who uses it, budgets, GPUs, streams as they stream.

Each is bounded: a page with more rows is read by nobody, and what was cut off is counted beside it.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from inferwatch.record import Outcome, RequestRecord
from inferwatch_collectors import metrics as m
from inferwatch_collectors.exchange import Exchange
from inferwatch_collectors.live.totals import FAILED, counts_by, grouped, quantile, values
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.metrics import Metric

MAX_ROWS: Final = 20
MAX_STREAMS: Final = 50

# For who asks for more: a terminal has no more lines, and a look at each takes some microseconds.
MOST_STREAMS: Final = 500
MAX_BUDGETS: Final = 30
MAX_GPUS: Final = 16

NS_PER_S: Final = 1e9

# A reply that failed, or was refused or given up: what somebody on call looks for.
UNHAPPY: Final = frozenset(Outcome) - {Outcome.OK}


class Used(NamedTuple):
    """What a tenant has used, or a model has served, so far."""

    requests: float
    failed: float
    tokens: float
    ttft: tuple[int, ...]


Usage = dict[str, Used]


def used_by(store: MetricStore, label: str) -> Usage:
    """Look at all values of `label`: `tenant` or `model`."""
    place = m.REQUESTS.labels.index(label)
    requests = grouped(store, m.REQUESTS, place)
    failed: dict[str, float] = {}
    for labels, value in values(store, m.REQUESTS):
        if labels[-1] in FAILED:
            failed[labels[place]] = failed.get(labels[place], 0.0) + value
    tokens: dict[str, float] = {}
    for labels, value in values(store, m.TOKENS):
        if labels[-1] in ("prompt", "completion"):  # the others are parts of these
            tokens[labels[place]] = tokens.get(labels[place], 0.0) + value
    ttft = counts_by(store, m.TIME_TO_FIRST_TOKEN, place)
    return {
        name: Used(count, failed.get(name, 0.0), tokens.get(name, 0.0), tuple(ttft.get(name, ())))
        for name, count in requests.items()
    }


def busiest(store: MetricStore, label: str, old: Usage, new: Usage, seconds: float) -> list[dict[str, Any]]:
    """Return the tenants, or models, with most tokens between two looks, the busiest first."""
    hardware, listed = (_dollars(store, label, basis) for basis in ("gpu", "price"))
    rows: list[dict[str, Any]] = []
    for name, now in new.items():
        before = old.get(name, Used(0.0, 0.0, 0.0, ()))
        rows.append(
            {
                label: name,
                "requests": _rate(before.requests, now.requests, seconds),
                "failed": _rate(before.failed, now.failed, seconds),
                "tokens": _rate(before.tokens, now.tokens, seconds),
                "ttft_p99": quantile(m.TIME_TO_FIRST_TOKEN, before.ttft, now.ttft, 0.99),
                "requests_total": now.requests,
                "tokens_total": now.tokens,
                "gpu_dollars_total": hardware.get(name),
                "price_dollars_total": listed.get(name),
            }
        )
    rows.sort(key=lambda row: (-(row["tokens"] or 0.0), -row["tokens_total"], row[label]))
    return rows[:MAX_ROWS]


def _dollars(store: MetricStore, label: str, basis: str) -> dict[str, float]:
    place, found = m.COST_DOLLARS.labels.index(label), dict[str, float]()
    for labels, value in values(store, m.COST_DOLLARS):
        if labels[-1] == basis:
            found[labels[place]] = found.get(labels[place], 0.0) + value
    return found


def _rate(old: float, new: float, seconds: float) -> float | None:
    return max(0.0, new - old) / seconds if seconds > 0 else None


def budgets(store: MetricStore) -> tuple[list[dict[str, Any]], int]:
    """Return the accounts of budgets, the fullest first, and how many there are in all."""
    rows: list[dict[str, Any]] = []
    pairs = ((m.BUDGET_LIMIT_DOLLARS, m.BUDGET_SPENT_DOLLARS), (m.BUDGET_LIMIT, m.BUDGET_SPENT))
    forecasts = _by(store, m.BUDGET_FORECAST_RATIO)
    exhaustion = _by(store, m.BUDGET_EXHAUSTION)
    for limit_metric, spent_metric in pairs:
        spent = dict(values(store, spent_metric))
        for labels, limit in values(store, limit_metric):
            account = labels[:4]
            rows.append(
                {
                    "budget": labels[0],
                    "account": " ".join(label for label in labels[1:4] if label),
                    "unit": labels[4] if len(labels) > 4 else "dollars",
                    "limit": limit,
                    "spent": spent.get(labels),
                    "forecast": [forecasts.get((*account, bound)) for bound in ("low", "expected", "high")],
                    "gone_in_s": exhaustion.get((*account, "expected")),
                }
            )
    rows.sort(key=lambda row: -((row["spent"] or 0.0) / row["limit"] if row["limit"] else 0.0))
    return rows[:MAX_BUDGETS], len(rows)


def gpus(store: MetricStore) -> tuple[list[dict[str, Any]], int]:
    """Return the GPUs by number, and how many there are in all."""
    columns: tuple[tuple[str, Metric], ...] = (
        ("utilization", m.GPU_UTILIZATION),
        ("memory_used", m.GPU_MEMORY_USED),
        ("memory_total", m.GPU_MEMORY_TOTAL),
        ("watts", m.GPU_POWER),
        ("watts_limit", m.GPU_POWER_LIMIT),
        ("celsius", m.GPU_TEMPERATURE),
    )
    looked = {name: _by(store, metric) for name, metric in columns}
    rows: list[dict[str, Any]] = [
        {"gpu": labels[0], "model": labels[2], "up": up, **{name: found.get(labels) for name, found in looked.items()}}
        for labels, up in values(store, m.GPU_UP)
        if labels[0]  # without a number: there is none
    ]
    rows.sort(key=lambda row: (len(row["gpu"]), row["gpu"]))
    return rows[:MAX_GPUS], len(rows)


def _by(store: MetricStore, metric: Metric) -> dict[tuple[str, ...], float]:
    return dict(values(store, metric))


def streams(
    open_exchanges: Iterable[Exchange], now_ns: int, limit: int = MAX_STREAMS
) -> tuple[list[dict[str, Any]], int]:
    """Return the `limit` oldest requests under way, and how many there are in all. Times are CLOCK_MONOTONIC."""
    exchanges = sorted(open_exchanges, key=lambda exchange: exchange.opened.arrival_ns)
    rows: list[dict[str, Any]] = []
    for exchange in exchanges[:limit]:
        opened, progress = exchange.opened, exchange.progress
        first_ns, tokens = progress.first_ns, progress.completion_tokens
        since_first_s = (now_ns - first_ns) / NS_PER_S if first_ns is not None else 0.0
        rows.append(
            {
                "tenant": opened.tenant,
                "model": opened.model,
                "stream": opened.stream,
                "age_s": (now_ns - opened.arrival_ns) / NS_PER_S,
                "ttft_s": None if first_ns is None else (first_ns - opened.arrival_ns) / NS_PER_S,
                "prompt": progress.prompt_tokens,
                "tokens": tokens,
                "rate": tokens / since_first_s if tokens and since_first_s > 0 else None,
            }
        )
    return rows, len(exchanges)


def unhappy(record: RequestRecord) -> dict[str, Any]:
    """Return what is shown of a request that did not end well: what happened, not what was said."""
    return {
        "unix_s": record.wall_ns / NS_PER_S + record.duration_s,
        "tenant": record.tenant,
        "model": record.model,
        "outcome": record.outcome.value,
        "error": record.error.value,
        "status": record.status,
        "duration_s": record.duration_s,
    }
