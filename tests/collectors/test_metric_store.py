"""Values that survive `kill -9` exactly, and are absent rather than wrong."""

import math
from bisect import bisect_left

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors import metrics as m
from inferwatch_collectors.metric_store import GONE, MetricStore, Row, rebucket
from inferwatch_collectors.metrics import Buckets, Group, Kind, Metric

LABELS = ("llama", "team-a", "chat")


def a_histogram(*bounds: float) -> Metric:
    return Metric(
        name="inferwatch_test_seconds",
        kind=Kind.HISTOGRAM,
        group=Group.LATENCY,
        help="Test.",
        measured="",
        unit="seconds",
        buckets=Buckets(bounds, "to test"),
    )


class Disk:
    """What a ledger does with rows: the latest wins, an empty value deletes."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, bytes], bytes] = {}

    def write(self, rows: list[Row]) -> None:
        for name, labels, value in rows:
            self._rows[name, labels] = value
            if value == GONE:
                del self._rows[name, labels]

    def rows(self) -> list[Row]:
        return [(*key, value) for key, value in self._rows.items()]

    def store(self, table: tuple[Metric, ...] = m.TABLE) -> MetricStore:
        store = MetricStore(table)
        store.restore(self.rows())
        return store


def test_same_labels_give_the_same_series() -> None:
    """A handle may be kept: it is the series, not a copy."""
    store = MetricStore()
    kept = store.counter(m.TOKENS, (*LABELS, "prompt"))
    store.counter(m.TOKENS, (*LABELS, "prompt")).add(7)
    assert kept.value == 7
    assert store.counter(m.TOKENS, (*LABELS, "cached")).value == 0


def test_wrong_number_of_labels_is_refused() -> None:
    """A series with a label too few would break every query on the family."""
    with pytest.raises(ValueError, match="expected values for"):
        MetricStore().counter(m.TOKENS, ("llama",))


def test_wrong_kind_is_refused() -> None:
    """A histogram cannot be asked for as a counter."""
    with pytest.raises(KeyError):
        MetricStore().counter(m.TIME_TO_FIRST_TOKEN, LABELS)


def test_tokens_stay_exact_integers() -> None:
    """Above 2**53, where floats would lose single tokens, and through a restart."""
    disk, store = Disk(), MetricStore()
    counter = store.counter(m.TOKENS, (*LABELS, "prompt"))
    counter.add(2**60)
    counter.add(1)
    disk.write(store.take_dirty())
    assert disk.store().counter(m.TOKENS, (*LABELS, "prompt")).value == 2**60 + 1


@pytest.mark.parametrize("amount", [-1, -0.001, math.nan, math.inf])
def test_counter_refuses_what_would_spoil_it(amount: float) -> None:
    """Negative and non-finite amounts raise, and leave the value."""
    counter = MetricStore().counter(m.LEDGER_COMMITS)
    counter.add(3)
    with pytest.raises(ValueError, match="cannot add"):
        counter.add(amount)
    assert counter.value == 3


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_histogram_refuses_what_would_spoil_it(value: float) -> None:
    """One NaN would make the sum NaN for ever, across restarts."""
    histogram = MetricStore().histogram(m.TIME_TO_FIRST_TOKEN, LABELS)
    with pytest.raises(ValueError, match="cannot observe"):
        histogram.observe(value)
    assert (histogram.count, histogram.sum) == (0, 0)


@pytest.mark.parametrize(
    ("value", "bucket"), [(0.0, 0), (0.5, 0), (1.0, 0), (1.0000001, 1), (2.0, 1), (4.0, 2), (4.1, 3), (1e9, 3)]
)
def test_bounds_are_inclusive(value: float, bucket: int) -> None:
    """`le` means less than or equal; above the last bound is +Inf."""
    histogram = MetricStore((a_histogram(1, 2, 4),)).histogram(a_histogram(1, 2, 4))
    histogram.observe(value)
    assert histogram.counts == [int(index == bucket) for index in range(4)]


def test_bulk_observation_equals_single_ones() -> None:
    """`observe(v, n)` is n times `observe(v)`."""
    store = MetricStore()
    bulk = store.histogram(m.INTER_TOKEN_LATENCY, LABELS)
    single = store.histogram(m.INTER_TOKEN_LATENCY, ("other", "other", "chat"))
    bulk.observe(0.25, 5)
    for _ in range(5):
        single.observe(0.25)
    assert (bulk.counts, bulk.sum) == (single.counts, single.sum)


@given(st.lists(st.tuples(st.integers(0, 2**20).map(lambda n: n / 256), st.integers(1, 9)), max_size=20))
def test_observing_all_equals_observing_each(observations: list[tuple[float, int]]) -> None:
    """`observe_all` is a faster `observe` of each: the same counts, the same sum, and the series is written down."""
    store = MetricStore()
    each = store.histogram(m.INTER_TOKEN_LATENCY, ("other", "other", "chat"))
    for value, count in observations:
        each.observe(value, count)
    together = store.histogram(m.INTER_TOKEN_LATENCY, LABELS)
    store.take_dirty()
    together.observe_all(observations)
    assert (together.counts, together.sum) == (each.counts, each.sum)
    assert [row[0] for row in store.take_dirty()] == [m.INTER_TOKEN_LATENCY.name]


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_observing_all_keeps_what_came_before_a_bad_value(bad: float) -> None:
    """The bad value is refused; counts and sum agree on those before it."""
    histogram = MetricStore().histogram(m.INTER_TOKEN_LATENCY, LABELS)
    with pytest.raises(ValueError, match="cannot observe"):
        histogram.observe_all([(0.25, 2), (bad, 1), (0.5, 1)])
    assert (histogram.count, histogram.sum) == (2, 0.5)


def test_exemplar_is_the_latest_of_its_bucket() -> None:
    """Each bucket shows one request that fell into it."""
    histogram = MetricStore((a_histogram(1, 2),)).histogram(a_histogram(1, 2))
    histogram.observe(0.5, 1, ("aa", 100.0, "1"))
    histogram.observe(0.7, 1, ("bb", 101.0, "2"))
    histogram.observe(9.0, 1, ("cc", 102.0, "3"))
    histogram.observe(0.6)
    assert histogram.exemplars == {0: ("bb", 0.7, 101.0, "2"), 2: ("cc", 9.0, 102.0, "3")}


def test_gauge_is_unknown_until_set_and_after_none() -> None:
    """None is "not known", which is not 0."""
    gauge = MetricStore().gauge(m.DRAINING)
    assert gauge.value is None
    gauge.set(0)
    assert gauge.value == 0
    gauge.set(None)
    assert gauge.value is None
    with pytest.raises(ValueError, match="finite"):
        gauge.set(math.nan)


def test_only_changes_are_taken() -> None:
    """A row for each changed series since the last call, once, however often it changed."""
    store = MetricStore()
    counter = store.counter(m.LEDGER_COMMITS)
    store.counter(m.LEDGER_COMMIT_FAILURES)
    assert {name for name, _, _ in store.take_dirty()} == {m.LEDGER_COMMITS.name, m.LEDGER_COMMIT_FAILURES.name}
    assert store.take_dirty() == []
    counter.add()
    counter.add()
    assert [name for name, _, _ in store.take_dirty()] == [m.LEDGER_COMMITS.name]


def test_gauges_are_not_restored() -> None:
    """Yesterday's reading is not known today."""
    store = MetricStore()
    store.gauge(m.DRAINING).set(1)
    assert store.take_dirty() == []


def test_failed_commit_loses_nothing() -> None:
    """Rows put back are handed out again, with the value of the time."""
    disk, store = Disk(), MetricStore()
    counter = store.counter(m.LEDGER_COMMITS)
    counter.add(2)
    lost = store.take_dirty()
    counter.add(3)
    store.put_back(lost)
    disk.write(store.take_dirty())
    assert disk.store().counter(m.LEDGER_COMMITS).value == 5


def test_rows_put_back_are_enough_by_themselves() -> None:
    """Also when nothing changed since, and for series that are gone."""
    store = MetricStore()
    store.counter(m.CLIENT_STALL, ("a",)).add(2)
    store.counter(m.CLIENT_STALL, ("b",)).add(2)
    store.take_dirty()
    store.retire(("tenant",), {("a",)})
    store.counter(m.CLIENT_STALL, ("b",)).add(1)
    lost = store.take_dirty()
    store.put_back(lost)
    assert sorted(store.take_dirty()) == sorted(lost)


def test_a_ledger_begun_afresh_gets_everything() -> None:
    """`touch_all` makes counters, histograms and memos dirty."""
    store = MetricStore()
    store.counter(m.LEDGER_COMMITS).add()
    store.histogram(m.TIME_TO_FIRST_TOKEN, LABELS).observe(1)
    store.memo("notes").set(b"x")
    rows = store.take_dirty()
    store.touch_all()
    assert sorted(store.take_dirty()) == sorted(rows)


def test_memo_is_restored_and_not_a_series() -> None:
    """Memos travel with the values, and no family shows them."""
    disk, store = Disk(), MetricStore()
    store.memo("notes", ("0",)).set(b"abc")
    disk.write(store.take_dirty())
    after = disk.store()
    assert [(memo.labels, memo.data) for memo in after.memos("notes")] == [(("0",), b"abc")]
    assert not any(family.children for family in after.families())


def test_memo_is_written_only_when_it_changes() -> None:
    """Setting the same bytes again is no change."""
    store = MetricStore()
    store.memo("notes").set(b"abc")
    store.take_dirty()
    store.memo("notes").set(b"abc")
    assert store.take_dirty() == []


def test_restored_values_are_added_to_what_was_counted_already() -> None:
    """Series that start at 0 before the ledger is open do not shadow the restored ones."""
    disk, store = Disk(), MetricStore()
    store.counter(m.LEDGER_COMMITS).add(5)
    disk.write(store.take_dirty())
    after = MetricStore()
    after.counter(m.LEDGER_COMMITS).add(1)
    after.restore(disk.rows())
    assert after.counter(m.LEDGER_COMMITS).value == 6


def test_restoring_twice_is_refused() -> None:
    """It would count everything twice."""
    store = MetricStore()
    store.restore([])
    with pytest.raises(RuntimeError, match="count twice"):
        store.restore([])


def rows_of(table: tuple[Metric, ...], values: list[float]) -> list[Row]:
    store = MetricStore(table)
    for value in values:
        store.histogram(table[0]).observe(value)
    return store.take_dirty()


def test_fewer_bounds_keep_exact_counts() -> None:
    """Every new bound was a bound before: the cumulative count at it is still true."""
    rows = rows_of((a_histogram(1, 2, 4, 8),), [0.5, 1.5, 3, 3, 5, 100])
    store = MetricStore((a_histogram(2, 8),))
    assert store.restore(rows)[:2] == (1, 1)
    histogram = store.histogram(a_histogram(2, 8))
    assert (histogram.counts, histogram.sum) == ([2, 3, 1], 113)


@pytest.mark.parametrize("bounds", [(1, 2, 3), (3,), (1, 2, 4, 8, 16)])
def test_a_new_bound_starts_afresh(bounds: tuple[float, ...]) -> None:
    """How many of the old values were below a new bound is not known, so none are claimed; the old row goes."""
    rows = rows_of((a_histogram(1, 2, 4, 8),), [0.5, 3])
    store = MetricStore((a_histogram(*bounds),))
    restored = store.restore(rows)
    assert restored.series == 0
    assert [name for name, _ in restored.discarded] == ["inferwatch_test_seconds"]
    assert store.take_dirty() == [(*rows[0][:2], GONE)]
    assert store.histogram(a_histogram(*bounds)).count == 0


@given(
    st.sets(st.integers(1, 50), min_size=1, max_size=12),
    st.sets(st.integers(1, 50), min_size=1, max_size=12),
    st.lists(st.integers(0, 60), max_size=40),
)
def test_rebucketing_equals_observing_anew_or_refuses(old: set[int], new: set[int], values: list[int]) -> None:
    """Whatever the bounds: the counts are those that the values would have given, or there are none."""
    old_bounds, new_bounds = (tuple(float(bound) for bound in sorted(bounds)) for bounds in (old, new))

    def observed(bounds: tuple[float, ...]) -> list[int]:
        counts = [0] * (len(bounds) + 1)
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        return counts

    expected = observed(new_bounds) if new <= old else None
    assert rebucket(old_bounds, observed(old_bounds), new_bounds) == expected


def misfits() -> list[tuple[str, Row]]:
    pack = msgspec.msgpack.encode
    commits, ttft = m.LEDGER_COMMITS.name, m.TIME_TO_FIRST_TOKEN.name
    bounds, counts = m.TTFT_BUCKETS.bounds, [0] * (len(m.TTFT_BUCKETS.bounds) + 1)
    return [
        ("a metric that is no more", ("inferwatch_old_total", pack(()), pack(("c", (), 1)))),
        ("another kind", (ttft, pack(LABELS), pack(("c", m.REQUEST, 1)))),
        ("other label names", (ttft, pack(LABELS), pack(("h", ("a", "b", "c"), bounds, counts, 0)))),
        ("too few label values", (ttft, pack(("x",)), pack(("h", m.REQUEST, bounds, counts, 0)))),
        ("too few counts", (ttft, pack(LABELS), pack(("h", m.REQUEST, bounds, [1], 0)))),
        ("a negative count", (ttft, pack(LABELS), pack(("h", m.REQUEST, bounds, [-1, *counts[1:]], 0)))),
        ("a sum that is not a number", (ttft, pack(LABELS), pack(("h", m.REQUEST, bounds, counts, math.nan)))),
        ("a negative value", (commits, pack(()), pack(("c", (), -1)))),
        ("not a state", (commits, pack(()), b"\xc1nonsense")),
    ]


@pytest.mark.parametrize("row", [row for _, row in misfits()], ids=[name for name, _ in misfits()])
def test_a_row_that_does_not_fit_is_discarded(row: Row) -> None:
    """It harms nothing else, is reported, and goes from the ledger."""
    good = rows_of((m.LEDGER_COMMITS, a_histogram(1))[1:], [0.5])
    store = MetricStore((*m.TABLE, a_histogram(1)))
    restored = store.restore([row, *good])
    assert restored.series == 1
    assert [name for name, _ in restored.discarded] == [row[0]]
    assert (row[0], row[1], GONE) in store.take_dirty()


def test_unreadable_labels_are_discarded() -> None:
    """A row whose labels cannot be read is reported and does not stop the start."""
    restored = MetricStore().restore([(m.LEDGER_COMMITS.name, b"\xc1", b"\xc1")])
    assert restored.series == 0
    assert restored.discarded[0][1].startswith("unreadable")


def test_retired_series_go_from_all_families_that_carry_the_labels() -> None:
    """Counters, gauges and histograms of the combination go; those of others, and of the model alone, stay."""
    store = MetricStore()
    for labels in (LABELS, ("llama", "team-b", "chat")):
        store.counter(m.TOKENS, (*labels, "prompt")).add(1)
        store.gauge(m.REQUESTS_IN_FLIGHT, labels).set(0)
        store.histogram(m.TIME_TO_FIRST_TOKEN, labels).observe(1)
    store.counter(m.REQUEST_ERRORS, ("llama", "internal"))
    assert store.retire(m.REQUEST, {LABELS}) == 3
    assert {labels for family in store.families() for labels in family.children} == {
        ("llama", "team-b", "chat", "prompt"),
        ("llama", "team-b", "chat"),
        ("llama", "internal"),
    }


def test_retired_series_stay_away_after_a_restart() -> None:
    """Their rows are handed out as gone, also if they were dirty when they went."""
    disk, store = Disk(), MetricStore()
    store.counter(m.CLIENT_STALL, ("a",)).add(1)
    store.counter(m.CLIENT_STALL, ("b",)).add(1)
    disk.write(store.take_dirty())
    store.counter(m.CLIENT_STALL, ("a",)).add(1)
    store.retire(("tenant",), {("a",)})
    disk.write(store.take_dirty())
    assert disk.store().series(m.CLIENT_STALL) == [("b",)]


def test_retired_series_that_returns_starts_at_zero() -> None:
    """A fresh series, which Prometheus takes for a counter reset, and the ledger for the present value."""
    disk, store = Disk(), MetricStore()
    store.counter(m.CLIENT_STALL, ("a",)).add(10)
    disk.write(store.take_dirty())
    store.retire(("tenant",), {("a",)})
    store.counter(m.CLIENT_STALL, ("a",)).add(1)
    disk.write(store.take_dirty())
    assert disk.store().counter(m.CLIENT_STALL, ("a",)).value == 1


STEPS = st.tuples(st.sampled_from(["add", "observe", "retire", "fail", "commit"]), st.sampled_from("abc"))


@given(st.lists(st.tuples(STEPS, st.integers(0, 2**40)), max_size=40))
def test_a_crash_forgets_exactly_what_was_not_committed(steps: list[tuple[tuple[str, str], int]]) -> None:
    """Whatever happened, in whatever order: what is read back equals the store as it was at the last commit."""
    disk, store = Disk(), MetricStore()
    committed: list[object] = []
    for (action, tenant), amount in steps:
        if action == "add":
            store.counter(m.CLIENT_STALL, (tenant,)).add(amount / 4)
        elif action == "observe":
            store.histogram(m.REQUEST_PROMPT_TOKENS, ("m", tenant, "chat")).observe(amount)
        elif action == "retire":
            store.retire(("tenant",), {(tenant,)})
        elif action == "fail":
            store.put_back(store.take_dirty())
        else:
            disk.write(store.take_dirty())
            committed = values(store)
    assert values(disk.store()) == committed


def values(store: MetricStore) -> list[object]:
    return [
        (labels, store.counter(m.CLIENT_STALL, labels).value) for labels in sorted(store.series(m.CLIENT_STALL))
    ] + [
        (labels, list(histogram.counts), histogram.sum)
        for labels in sorted(store.series(m.REQUEST_PROMPT_TOKENS))
        for histogram in [store.histogram(m.REQUEST_PROMPT_TOKENS, labels)]
    ]
