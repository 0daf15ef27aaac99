"""The collector about itself: plain counts of its parts, brought into the metric store once a second.

Parts count in plain integers, so that none of them needs to know of metrics; here stands which becomes what.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from inferwatch_collectors import metrics as m
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.metrics import Metric

# Two of the usual scrapes of 15 s: each peak is in at least one of them.
LAG_WINDOW_S: Final = 30.0


class Vitals:
    """Mirrors counts into the store."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._counts: list[tuple[Metric, tuple[str, ...], Callable[[], int]]] = []
        self._told: dict[tuple[str, tuple[str, ...]], int] = {}
        self._lags: deque[tuple[float, float]] = deque()

    def count(self, metric: Metric, labels: tuple[str, ...], read: Callable[[], int]) -> None:
        """Follow a count that only grows and begins at 0 with this process."""
        self._counts.append((metric, labels, read))
        self._store.counter(metric, labels)

    def cut(self, reason: str, read: Callable[[], int]) -> None:
        """Follow what one bound cuts off."""
        self.count(m.COLLECTOR_CUT, (reason,), read)

    def refresh(self) -> None:
        """Bring the store up to date."""
        for metric, labels, read in self._counts:
            now = read()
            growth = now - self._told.get((metric.name, labels), 0)
            if growth > 0:
                self._told[metric.name, labels] = now
                self._store.counter(metric, labels).add(growth)

    def lagged(self, now_s: float, lag_s: float) -> None:
        """Take one measurement of how late a timer was."""
        self._lags.append((now_s, max(0.0, lag_s)))
        while self._lags[0][0] < now_s - LAG_WINDOW_S:
            self._lags.popleft()
        self._store.gauge(m.COLLECTOR_LOOP_LAG).set(max(lag for _, lag in self._lags))

    def gauge(self, metric: Metric, value: float | None, labels: tuple[str, ...] = ()) -> None:
        """Set a reading."""
        self._store.gauge(metric, labels).set(value)

    def started(self, version: str, unix_s: float) -> None:
        """Set what does not change."""
        self.gauge(m.BUILD_INFO, 1, (version,))
        self.gauge(m.START_TIME, unix_s)
