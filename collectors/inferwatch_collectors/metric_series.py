"""One series of a metric: a number, or a few, that a caller changes and its store writes down and reads back.

A durable series (counter, histogram, memo) tells its store of the first change since it was last written, by `mark`.
Gaps between tokens are observed here, some thousands a second, so the changing methods check, add, and do no more.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from math import inf
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from inferwatch_collectors.metrics import Metric

LabelValues = tuple[str, ...]

# (name, label values, state), the last two packed: what a ledger keeps for one series.
Row = tuple[str, bytes, bytes]

# In front of the name of a memo: no metric can be called that.
MEMO_PREFIX: Final = "#"

GONE: Final = b""


class Exemplar(NamedTuple):
    """One request that fell into a bucket."""

    trace_id: str
    value: float
    wall_s: float  # Unix time at which it was observed
    span_id: str = ""


class CounterState(msgspec.Struct, array_like=True, tag="c", frozen=True):
    labels: LabelValues  # names
    value: int | float


class HistogramState(msgspec.Struct, array_like=True, tag="h", frozen=True):
    labels: LabelValues  # names
    bounds: tuple[float, ...]
    counts: list[int]  # per bucket, not cumulative; the last is +Inf's
    sum: int | float


class MemoState(msgspec.Struct, array_like=True, tag="m", frozen=True):
    data: bytes


State = CounterState | HistogramState | MemoState

encode: Final = msgspec.msgpack.Encoder().encode
decode_labels: Final = msgspec.msgpack.Decoder(LabelValues).decode
decode_state: Final = msgspec.msgpack.Decoder(State).decode


class Durable:
    """A series that tells its store of the first change since the store last wrote it down."""

    __slots__ = ("_clean", "_mark", "labels", "name")

    def __init__(self, name: str, labels: LabelValues, mark: Callable[["Durable"], None]) -> None:
        self.name = name
        self.labels = labels
        self._mark = mark
        self._clean = False
        mark(self)

    def state(self) -> State:
        raise NotImplementedError

    def written(self) -> None:
        """The store has taken the present value."""
        self._clean = True

    def touch(self) -> None:
        """Make sure that the next `take_dirty` has this series."""
        if self._clean:
            self._clean = False
            self._mark(self)


class Counter(Durable):
    """A sum that only grows. Integers stay integers."""

    __slots__ = ("metric", "value")

    def __init__(self, metric: Metric, labels: LabelValues, mark: Callable[[Durable], None]) -> None:
        super().__init__(metric.name, labels, mark)
        self.metric = metric
        self.value: int | float = 0

    def add(self, amount: float = 1) -> None:
        """Add `amount`, in the metric's unit.

        Raises:
            ValueError: it is negative or not finite.
        """
        if not 0 <= amount < inf:
            raise ValueError(f"{self.name}: cannot add {amount}, expected a finite number of 0 or more")
        self.value += amount
        if self._clean:
            self._clean = False
            self._mark(self)

    def state(self) -> State:
        return CounterState(self.metric.labels, self.value)


class Histogram(Durable):
    """Counts per bucket and their sum. `counts` is not cumulative; its last item is what lies above all bounds."""

    __slots__ = ("bounds", "counts", "exemplars", "metric", "sum")

    def __init__(self, metric: Metric, labels: LabelValues, mark: Callable[[Durable], None]) -> None:
        super().__init__(metric.name, labels, mark)
        assert metric.buckets is not None
        self.metric = metric
        self.bounds = metric.buckets.bounds
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum: int | float = 0
        self.exemplars: dict[int, Exemplar] = {}  # the latest of each bucket, by its index; not durable

    def observe(self, value: float, count: int = 1, exemplar: tuple[str, float, str] | None = None) -> None:
        """Observe `value` (in the metric's unit) `count` times. `exemplar`: (trace id, Unix time in s, span id).

        Raises:
            ValueError: the value is negative or not finite. It would spoil the sum for ever.
        """
        if not 0 <= value < inf:
            raise ValueError(f"{self.name}: cannot observe {value}, expected a finite number of 0 or more")
        index = bisect_left(self.bounds, value)
        self.counts[index] += count
        self.sum += value * count
        if exemplar is not None:
            self.exemplars[index] = Exemplar(exemplar[0], value, exemplar[1], exemplar[2])
        if self._clean:
            self._clean = False
            self._mark(self)

    def observe_all(self, observations: Iterable[tuple[float, int]]) -> None:
        """Observe each (value, count), as `observe` does; for many at once this is a fraction of its cost.

        Raises:
            ValueError: a value is negative or not finite. Those before it were observed.
        """
        bounds, counts, total = self.bounds, self.counts, 0.0
        try:
            for value, count in observations:
                if not 0 <= value < inf:
                    raise ValueError(f"{self.name}: cannot observe {value}, expected a finite number of 0 or more")
                counts[bisect_left(bounds, value)] += count
                total += value * count
        finally:
            self.sum += total
            self.touch()

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)

    def state(self) -> State:
        return HistogramState(self.metric.labels, self.bounds, self.counts, self.sum)


class Memo(Durable):
    """Bytes that are kept with the values but never exported: what a delta was last taken against."""

    __slots__ = ("data",)

    def __init__(self, name: str, labels: LabelValues, mark: Callable[[Durable], None]) -> None:
        super().__init__(name, labels, mark)
        self.data = b""

    def set(self, data: bytes) -> None:
        if data != self.data:
            self.data = data
            self.touch()

    def state(self) -> State:
        return MemoState(self.data)


class Gauge:
    """A reading. None: not known, and then not exported."""

    __slots__ = ("labels", "metric", "value")

    def __init__(self, metric: Metric, labels: LabelValues) -> None:
        self.metric = metric
        self.labels = labels
        self.value: int | float | None = None

    def set(self, value: float | None) -> None:
        """Set the reading, in the metric's unit, or forget it.

        Raises:
            ValueError: it is infinite or not a number.
        """
        if value is not None and not -inf < value < inf:
            raise ValueError(f"{self.metric.name}: cannot be {value}, expected a finite number or None")
        self.value = value


S = TypeVar("S", Counter, Gauge, Histogram)


class Family(Generic[S]):
    """All series of one metric, by label values."""

    __slots__ = ("children", "metric")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.children: dict[LabelValues, S] = {}

    def sorted(self) -> list[S]:
        """Series in the order of their label values: two scrapes differ only where values do."""
        return [child for _, child in sorted(self.children.items(), key=lambda item: item[0])]


def rebucket(old: tuple[float, ...], counts: list[int], new: tuple[float, ...]) -> list[int] | None:
    """Return `counts` (per bucket, +Inf's last) for the bounds `new`, or None if `old` does not tell them.

    The cumulative count at a bound is known exactly if the bound was a bound before.
    """
    if len(counts) != len(old) + 1:
        return None
    cumulative = dict(zip((*old, inf), accumulate(counts), strict=True))
    if not all(bound in cumulative for bound in new):
        return None
    at_bound = [cumulative[bound] for bound in (*new, inf)]
    return [upper - lower for lower, upper in zip([0, *at_bound], at_bound, strict=False)]
