"""Where metric values live: plain Python numbers that can be written down and read back exactly.

Why not prometheus_client's own metrics: (a) a gap between two tokens must cost a fraction of a microsecond and be
observable n at a time; (b) after `kill -9` the values must be those of the last ledger commit, so they go into the same
transaction as the records that they count; (c) tokens stay integers, a float is exact only up to 2**53.

Rules of this file:
1. Counters, histograms and memos are durable; gauges are not (promise 6: yesterday's gauge is not known today).
2. A durable series is *dirty* from its first change after `take_dirty` until the next one. Rows hold absolute values,
   so writing one twice, or writing only the later of two, does no harm.
3. A row with an empty value says that the series is gone; whoever keeps the rows may delete it.
4. What is read back is right or absent. A row restores only into a metric of the same name, kind and label names. A
   histogram whose bounds have changed keeps its counts if every new bound was a bound before (the cumulative count at
   a bound stays true when other bounds go); a bound that is new has a count that nobody knows, so the series starts at
   0 and Prometheus sees an ordinary counter reset.

Protocol of exactly-once, for the caller: in one step without `await`, record the requests that the ledger has not seen
and `take_dirty`; then commit both together. If the commit fails, `put_back` the rows, keep the requests as "recorded,
not committed", and commit them again later without recording them again. Killed in between, both are forgotten.
"""

from collections.abc import Collection, Iterable, Iterator
from math import inf
from typing import NamedTuple

import msgspec

from inferwatch_collectors.metric_series import (
    GONE,
    MEMO_PREFIX,
    Counter,
    CounterState,
    Durable,
    Exemplar,
    Family,
    Gauge,
    Histogram,
    HistogramState,
    LabelValues,
    Memo,
    MemoState,
    Row,
    decode_labels,
    decode_state,
    encode,
    rebucket,
)
from inferwatch_collectors.metrics import TABLE, Kind, Metric

__all__ = [
    "GONE",
    "Counter",
    "Exemplar",
    "Family",
    "Gauge",
    "Histogram",
    "LabelValues",
    "Memo",
    "MetricStore",
    "Restored",
    "Row",
    "rebucket",
]


class Restored(NamedTuple):
    """What became of the rows given to `restore`."""

    series: int  # with their values, those of `rebucketed` included
    rebucketed: int  # histograms whose bounds became fewer
    discarded: tuple[tuple[str, str], ...]  # (name, why)


class MetricStore:
    """All values of one process. Not thread-safe: everything happens on the event loop's thread.

    Handles from `counter`, `gauge` and `histogram` may be kept, except those of series that `retire` removes.
    """

    def __init__(self, table: Iterable[Metric] = TABLE) -> None:
        self._metrics = {metric.name: metric for metric in table}
        self._counters = {name: Family[Counter](metric) for name, metric in self._of(Kind.COUNTER)}
        self._gauges = {name: Family[Gauge](metric) for name, metric in self._of(Kind.GAUGE)}
        self._histograms = {name: Family[Histogram](metric) for name, metric in self._of(Kind.HISTOGRAM)}
        self._memos: dict[tuple[str, LabelValues], Memo] = {}
        self._dirty: list[Durable] = []
        self._gone: set[tuple[str, LabelValues]] = set()
        self._restored = False

    def _of(self, kind: Kind) -> Iterator[tuple[str, Metric]]:
        return ((name, metric) for name, metric in self._metrics.items() if metric.kind is kind)

    # --- series ---

    def counter(self, metric: Metric, labels: LabelValues = ()) -> Counter:
        """Return the counter of `metric` with these label values, in the order of its label names; begin it at 0."""
        children = self._counters[metric.name].children
        child = children.get(labels)
        if child is None:
            child = children[labels] = Counter(metric, _checked(metric, labels), self._dirty.append)
        return child

    def gauge(self, metric: Metric, labels: LabelValues = ()) -> Gauge:
        """Return the gauge of `metric` with these label values. Not exported before it is set."""
        children = self._gauges[metric.name].children
        child = children.get(labels)
        if child is None:
            child = children[labels] = Gauge(metric, _checked(metric, labels))
        return child

    def histogram(self, metric: Metric, labels: LabelValues = ()) -> Histogram:
        """Return the histogram of `metric` with these label values."""
        children = self._histograms[metric.name].children
        child = children.get(labels)
        if child is None:
            child = children[labels] = Histogram(metric, _checked(metric, labels), self._dirty.append)
        return child

    def memo(self, name: str, labels: LabelValues = ()) -> Memo:
        """Return the memo of this name. It is empty until set or restored."""
        key = (MEMO_PREFIX + name, labels)
        memo = self._memos.get(key)
        if memo is None:
            memo = self._memos[key] = Memo(*key, self._dirty.append)
        return memo

    def memos(self, name: str) -> list[Memo]:
        """Return all memos of this name."""
        return [memo for (full_name, _), memo in self._memos.items() if full_name == MEMO_PREFIX + name]

    def family(self, metric: Metric) -> Family[Counter] | Family[Gauge] | Family[Histogram]:
        """Return all series of `metric`."""
        if metric.kind is Kind.COUNTER:
            return self._counters[metric.name]
        return self._gauges[metric.name] if metric.kind is Kind.GAUGE else self._histograms[metric.name]

    def series(self, metric: Metric) -> list[LabelValues]:
        """Return the label values of all series of `metric`."""
        return [*self.family(metric).children]

    def families(self) -> Iterator[Family[Counter] | Family[Gauge] | Family[Histogram]]:
        """Yield every family, in the order of the table."""
        return (self.family(metric) for metric in self._metrics.values())

    def retire(self, names: LabelValues, values: Collection[LabelValues]) -> int:
        """Remove the series whose labels `names` have one of `values`, in families that carry all of `names`.

        A series that comes back begins at 0, which Prometheus takes for a counter reset; the ledger has all-time sums.

        Returns:
            How many series went.
        """
        removed = 0
        for family in self.families():
            own = family.metric.labels
            if not set(names) <= set(own):
                continue
            places = [own.index(name) for name in names]
            for labels in [each for each in family.children if tuple(each[place] for place in places) in values]:
                del family.children[labels]
                removed += 1
                if family.metric.kind is not Kind.GAUGE:
                    self._gone.add((family.metric.name, labels))
        return removed

    # --- durability ---

    def take_dirty(self) -> list[Row]:
        """Return a row for every durable series changed or gone since the last call."""
        dirty, self._dirty[:] = list(self._dirty), []
        rows: list[Row] = []
        for series in dirty:
            if self._durable(series.name, series.labels) is series:
                series.written()
                rows.append((series.name, encode(series.labels), encode(series.state())))
        for name, labels in self._gone:
            if self._durable(name, labels) is None:
                rows.append((name, encode(labels), GONE))
        self._gone.clear()
        return rows

    def put_back(self, rows: Iterable[Row]) -> None:
        """Make the series of `rows`, which could not be written, dirty again."""
        for name, packed, _ in rows:
            labels = decode_labels(packed)
            series = self._durable(name, labels)
            if series is None:
                self._gone.add((name, labels))
            else:
                series.touch()

    def touch_all(self) -> None:
        """Make every durable series dirty: for a ledger that was begun afresh."""
        for counters in self._counters.values():
            for counter in counters.children.values():
                counter.touch()
        for histograms in self._histograms.values():
            for histogram in histograms.children.values():
                histogram.touch()
        for memo in self._memos.values():
            memo.touch()

    def restore(self, rows: Iterable[Row]) -> Restored:
        """Take up the values of an earlier life. Once, at the start; what was counted before the call is kept.

        Rows that do not fit (rule 4) are discarded, and handed out as gone by the next `take_dirty`.

        Raises:
            RuntimeError: called a second time, which would count everything twice.
        """
        if self._restored:
            raise RuntimeError("restore was called before: values would count twice")
        self._restored = True
        series = rebucketed = 0
        discarded: list[tuple[str, str]] = []
        for name, packed, data in rows:
            if data == GONE:
                continue
            try:
                kept_bounds = self._take_up(name, decode_labels(packed), data)
            except msgspec.DecodeError as error:
                discarded.append((name, f"unreadable: {error}"))
            except _MisfitError as error:
                discarded.append((name, str(error)))
                self._gone.add((name, decode_labels(packed)))
            else:
                series += 1
                rebucketed += not kept_bounds
        return Restored(series, rebucketed, tuple(discarded))

    def _take_up(self, name: str, labels: LabelValues, data: bytes) -> bool:
        """Add what `data` says to its series; return False if it had to be put into fewer buckets."""
        try:
            state = decode_state(data)
        except msgspec.DecodeError as error:
            raise _MisfitError(f"unreadable: {error}") from None
        if isinstance(state, MemoState):
            self.memo(name.removeprefix(MEMO_PREFIX), labels).set(state.data)
            return True
        metric = self._metrics.get(name)
        if metric is None:
            raise _MisfitError("there is no such metric")
        if metric.labels != state.labels or len(labels) != len(state.labels):
            raise _MisfitError(f"its labels were {state.labels}, expected {metric.labels}")
        if isinstance(state, CounterState) and metric.kind is Kind.COUNTER:
            if not 0 <= state.value < inf:
                raise _MisfitError(f"its value was {state.value}")
            counter = self.counter(metric, labels)
            counter.value += state.value
            counter.touch()
            return True
        if isinstance(state, HistogramState) and metric.kind is Kind.HISTOGRAM and metric.buckets is not None:
            counts = rebucket(state.bounds, state.counts, metric.buckets.bounds)
            if counts is None:
                raise _MisfitError("its bounds changed and the new ones are not among the old")
            if min(counts) < 0 or not 0 <= state.sum < inf:
                raise _MisfitError(f"its counts were {counts}, their sum {state.sum}")
            histogram = self.histogram(metric, labels)
            histogram.counts = [old + new for old, new in zip(histogram.counts, counts, strict=True)]
            histogram.sum += state.sum
            histogram.touch()
            return state.bounds == metric.buckets.bounds
        raise _MisfitError(f"it was not a {metric.kind}")

    def _durable(self, name: str, labels: LabelValues) -> Durable | None:
        if name in self._counters:
            return self._counters[name].children.get(labels)
        if name in self._histograms:
            return self._histograms[name].children.get(labels)
        return self._memos.get((name, labels))


class _MisfitError(Exception):
    """A stored series has no place in the present table."""


def _checked(metric: Metric, labels: LabelValues) -> LabelValues:
    if len(labels) != len(metric.labels):
        raise ValueError(f"{metric.name}: got labels {labels}, expected values for {metric.labels}")
    return tuple(labels)
