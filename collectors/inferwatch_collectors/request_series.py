"""The series of one combination of request labels, kept at hand once they were looked up.

A finished request changes a dozen values. Found in the store by name and label values each costs a tuple, its hash and
two look-ups; found here, by what differs between them, a fraction of it. A series still begins in the store when its
first value comes, since one without values is not exported. Handles are good as long as their combination is: whoever
retires that in the store lets go of its `RequestSeries`.
"""

from typing import Final

from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import RequestLabels
from inferwatch_collectors.metric_store import Counter, Gauge, Histogram, MetricStore
from inferwatch_collectors.metrics import TABLE

_BY_NAME: Final = {metric.name: metric for metric in TABLE}


class _Counters(dict[tuple[str, ...], Counter]):
    """By the metric's name and the values of those of its labels that are not the request's, in their order."""

    __slots__ = ("_labels", "_store")

    def __init__(self, store: MetricStore, labels: RequestLabels) -> None:
        super().__init__()
        self._store = store
        self._labels = labels._asdict()

    def __missing__(self, key: tuple[str, ...]) -> Counter:
        metric = _BY_NAME[key[0]]
        rest = iter(key[1:])
        values = tuple(self._labels[name] if name in self._labels else next(rest) for name in metric.labels)
        counter = self[key] = self._store.counter(metric, values)
        return counter


class _Histograms(dict[str, Histogram]):
    """By the metric's name; all of them have the request's labels and no others."""

    __slots__ = ("_labels", "_store")

    def __init__(self, store: MetricStore, labels: RequestLabels) -> None:
        super().__init__()
        self._store = store
        self._labels = labels

    def __missing__(self, name: str) -> Histogram:
        histogram = self[name] = self._store.histogram(_BY_NAME[name], self._labels)
        return histogram


class RequestSeries:
    """What is counted of the requests with these labels."""

    __slots__ = ("_gauge", "_store", "counters", "histograms", "in_flight", "labels", "used_s")

    def __init__(self, store: MetricStore, labels: RequestLabels) -> None:
        self.labels = labels
        self.counters = _Counters(store, labels)
        self.histograms = _Histograms(store, labels)
        self.in_flight = 0  # requests
        self.used_s = 0.0  # CLOCK_MONOTONIC
        self._store = store
        self._gauge: Gauge | None = None  # of `in_flight`, from the first request on

    @property
    def begun(self) -> bool:
        """Whether a request was ever in flight here."""
        return self._gauge is not None

    def enter(self) -> None:
        """One request more is in flight."""
        if self._gauge is None:
            self._gauge = self._store.gauge(m.REQUESTS_IN_FLIGHT, self.labels)
        self.in_flight += 1
        self._gauge.set(self.in_flight)

    def leave(self) -> None:
        """One of those that entered is in flight no more."""
        self.in_flight -= 1
        if self._gauge is not None:
            self._gauge.set(self.in_flight)
