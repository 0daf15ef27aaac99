"""What relays report about themselves, as values of the table. Pure: no clock, no I/O.

A relay reports sums since its own start. What is added is the growth since its last report, per life of a process
("boot"), and the last report is kept with the counters: neither side's restart counts anything twice. What a relay
holds at present is known as long as it reports.
"""

from collections import deque
from typing import Final

import msgspec

from inferwatch.tap import Stats
from inferwatch_collectors import metrics as m
from inferwatch_collectors.metric_store import Memo, MetricStore

# A relay reports once a second; after ten missing reports its gauges are no longer known.
RELAY_SILENT_S: Final = 10.0

# Two of the usual scrapes of 15 s: each peak is in at least one of them.
LAG_WINDOW_S: Final = 30.0

# Lives remembered per worker. Two overlap during a replacement; the rest is margin for late reports.
MAX_BOOTS: Final = 8

BASELINE: Final = "relay_baseline"

# Value of the label `reason`: requests that passed budgets because a relay had no hold of the lock.
LOCK: Final = "lock"

NS_PER_S: Final = 1_000_000_000

# (field of Stats, counter, divisor)
_GROWING: Final = (
    ("cpu_ns", m.RELAY_CPU, NS_PER_S),
    ("upstream_connects", m.RELAY_UPSTREAM_CONNECTS, 1),
    ("upstream_connect_errors", m.RELAY_UPSTREAM_CONNECT_ERRORS, 1),
    ("upstream_retries", m.RELAY_UPSTREAM_RETRIES, 1),
    ("tap_dropped_bytes", m.TAP_DROPPED_BYTES, 1),
    ("tap_dropped_reads", m.TAP_DROPPED_READS, 1),
    ("tap_spooled", m.TAP_SPOOLED, 1),
    ("tap_lost", m.TAP_LOST, 1),
    ("observer_errors", m.RELAY_OBSERVER_ERRORS, 1),
)

# (field of Stats, gauge): summed over the processes that share a worker's place while one replaces the other.
_PRESENT: Final = (
    ("open_requests", m.RELAY_OPEN_REQUESTS),
    ("client_connections", m.RELAY_CLIENT_CONNECTIONS),
    ("upstream_idle", m.RELAY_UPSTREAM_IDLE),
    ("tap_pending_bytes", m.TAP_PENDING),
)

_encode: Final = msgspec.msgpack.Encoder().encode
# {boot: {field of Stats: value}}, oldest boot first. By name: a later version may count more.
_Baselines = dict[str, dict[str, int]]
_decode: Final = msgspec.msgpack.Decoder(_Baselines).decode


class _Life:
    """One relay process that reports at present."""

    def __init__(self) -> None:
        self.seen_s = 0.0
        self.last: Stats | None = None
        self.lags: deque[tuple[float, float]] = deque()  # (when, lag), both in seconds, within LAG_WINDOW_S


class RelayRecorder:
    """The relays about themselves."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._baselines: dict[int, _Baselines] = {}
        self._alive: dict[int, dict[str, _Life]] = {}

    def resume(self) -> None:
        """Take up the last reports known to an earlier life of the collector, from the restored store."""
        for memo in self._store.memos(BASELINE):
            try:
                self._baselines[int(memo.labels[0])] = _decode(memo.data)
            except (msgspec.DecodeError, ValueError):
                # Then this worker's sums since its start are counted anew: a wrong rate once, rather than no start.
                memo.set(b"")

    def stats(self, worker: int, boot: str, stats: Stats) -> None:
        """Take one report of the process `boot` in the place `worker`."""
        boots = self._baselines.setdefault(worker, {})
        label = (str(worker),)
        restarts = self._store.counter(m.RELAY_RESTARTS, label)
        if boot not in boots:
            restarts.add(1 if boots else 0)
            boots[boot] = {}
            while len(boots) > MAX_BOOTS:
                del boots[next(iter(boots))]
        baseline = boots[boot]
        for field, metric, divisor in _GROWING:
            growth = _growth(baseline, field, stats)
            self._store.counter(metric, label).add(growth if divisor == 1 else growth / divisor)
        if unsure := _growth(baseline, "budget_unsure", stats):
            self._store.counter(m.BUDGET_UNCHECKED, (LOCK,)).add(unsure)
        self._memo(worker).set(_encode(boots))
        self._report(worker, boot, stats)

    def gone(self, worker: int, boot: str) -> None:
        """The connection of this process has ended: what it holds at present is not known any more."""
        if self._alive.get(worker, {}).pop(boot, None) is not None:
            self._show(worker)

    def tick(self, now_s: float) -> None:
        """Forget the present state of processes that have been silent for RELAY_SILENT_S."""
        for worker, lives in self._alive.items():
            silent = [boot for boot, life in lives.items() if now_s - life.seen_s > RELAY_SILENT_S]
            for boot in silent:
                del lives[boot]
            if silent:
                self._show(worker)

    def _report(self, worker: int, boot: str, stats: Stats) -> None:
        life = self._alive.setdefault(worker, {}).setdefault(boot, _Life())
        now_s = stats.stamp_ns / NS_PER_S
        if now_s < life.seen_s:
            return
        life.seen_s, life.last = now_s, stats
        life.lags.append((now_s, stats.loop_lag_max_ns / NS_PER_S))
        while life.lags[0][0] < now_s - LAG_WINDOW_S:
            life.lags.popleft()
        self._show(worker)

    def _show(self, worker: int) -> None:
        lives = [life for life in self._alive[worker].values() if life.last is not None]
        label = (str(worker),)
        for field, metric in _PRESENT:
            values: list[int] = [getattr(life.last, field) for life in lives]
            self._store.gauge(metric, label).set(sum(values) if values else None)
        lags_s = [lag_s for life in lives for _, lag_s in life.lags]
        self._store.gauge(m.RELAY_LOOP_LAG, label).set(max(lags_s, default=None))

    def _memo(self, worker: int) -> Memo:
        return self._store.memo(BASELINE, (str(worker),))


def _growth(baseline: dict[str, int], field: str, stats: Stats) -> int:
    """Return by how much a sum has grown since the last report, and remember it."""
    now: int = getattr(stats, field)
    before = baseline.get(field, 0)
    baseline[field] = max(now, before)
    return max(0, now - before)  # a report sent again, after a reconnect, has none
