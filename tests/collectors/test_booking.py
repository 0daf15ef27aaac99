"""Who is open, who was booked, what becomes of a dead relay's requests."""

import functools
from collections.abc import Callable, Collection
from typing import Any

import pytest

from inferwatch.record import ErrorType, Outcome, RequestRecord, TokenSource
from inferwatch.tap import Batch, Close, FrameError, Head, Open
from inferwatch_collectors import booking as booking_module
from inferwatch_collectors import metrics as m
from inferwatch_collectors.bare_record import bare_record
from inferwatch_collectors.booking import GRACE_NS, READS_PER_BREATH, Booking
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.dialects import body
from inferwatch_collectors.dialects.base import CUT_REASONS
from inferwatch_collectors.exchange import Exchange
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.open_requests import Link
from inferwatch_collectors.recorder import Recorder

LABELS = ("qwen", "acme", "chat")


class Books:
    """A booking with a real recorder; `records` is what it booked."""

    def __init__(self, frames: Any, **options: Any) -> None:
        self.records: list[RequestRecord] = []
        self.store = MetricStore()
        self.booking = Booking(Recorder(self.store, CardinalityGuard()), self.records.append, **options)
        self.frames = frames
        self.now_ns: int = frames.base_ns
        self.link = self.connect()

    def connect(self, **changes: Any) -> Link:
        return self.booking.connect(self.frames.hello(**changes), self.now_ns)

    def apply(self, batch: Batch, booked: Collection[str] = (), link: Link | None = None) -> list[bool]:
        """Apply the whole batch; return what it said after each step: whether others should run."""
        return list(self.booking.apply(link or self.link, batch, set(booked), self.now_ns))

    def expire(self, now_ns: int, is_alive: Callable[[int], bool] = lambda _: True) -> int:
        """Return how many were booked, and others could run after each."""
        return sum(1 for _ in self.booking.expire(now_ns, is_alive))

    def in_flight(self) -> float | None:
        return self.store.gauge(m.REQUESTS_IN_FLIGHT, LABELS).value

    def requests(self, outcome: str) -> float:
        return self.store.counter(m.REQUESTS, (*LABELS, outcome)).value

    def tokens(self, token_type: str) -> float:
        return self.store.counter(m.TOKENS, (*LABELS, token_type)).value

    def observer_errors(self, stage: str) -> float:
        return self.store.counter(m.COLLECTOR_OBSERVER_ERRORS, (stage,)).value


@pytest.fixture
def books(frames: Any) -> Books:
    return Books(frames)


# --- the ordinary way


def test_a_plain_request(books: Books, frames: Any) -> None:
    """Open, head, read and close in one batch make one record, counted once."""
    books.apply(frames.whole(1))
    (record,) = books.records
    assert (record.outcome, record.prompt_tokens, record.completion_tokens) == (Outcome.OK, 7, 3)
    assert record.token_source is TokenSource.FINAL_USAGE
    assert (books.requests("ok"), books.tokens("prompt"), books.tokens("completion")) == (1, 7, 3)
    assert books.in_flight() == 0


def test_frames_of_a_request_in_many_batches(books: Books, frames: Any) -> None:
    """How frames are spread over batches makes no difference."""
    books.apply(frames.batch(opens=[frames.open(1)]))
    assert books.in_flight() == 1
    books.apply(frames.batch(heads=[frames.head(1)]))
    books.apply(frames.batch(reads=[frames.read(1, frames.plain_reply[:50])]))
    books.apply(frames.batch(reads=[frames.read(1, frames.plain_reply[50:])]))
    assert books.records == []
    books.apply(frames.batch(closes=[frames.close(1)]))
    assert [record.completion_tokens for record in books.records] == [3]
    assert (books.in_flight(), books.booking.open_requests) == (0, 0)


def test_gaps_are_observed_while_the_stream_runs(books: Books, frames: Any) -> None:
    """Each batch brings its gaps to the histogram; two tokens in one event are two gaps of half the time."""
    books.apply(frames.batch(opens=[frames.open(1, stream=True)], heads=[frames.head(1, "text/event-stream")]))
    books.apply(frames.batch(reads=[frames.event(1, "a", 1, 100), frames.event(1, "b", 2, 130)]))
    histogram = books.store.histogram(m.INTER_TOKEN_LATENCY, LABELS)
    assert (histogram.count, histogram.sum) == (1, pytest.approx(0.030))
    books.apply(frames.batch(reads=[frames.event(1, "cd", 4, 170)]))
    assert (histogram.count, histogram.sum) == (3, pytest.approx(0.070))
    books.apply(frames.batch(reads=[frames.event(1, "e", 5, 180)], closes=[frames.close(1)]))
    assert (histogram.count, histogram.sum) == (4, pytest.approx(0.080))
    (record,) = books.records
    assert (record.gap_count, record.gap_sum_s) == (4, pytest.approx(0.080))


def test_what_a_bound_cut_off_is_counted(books: Books, frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each answer and bound, when the request is booked."""
    monkeypatch.setattr(body, "MAX_REPLY_BYTES", len(frames.plain_reply) - 1)
    books.apply(frames.whole(1, 2))
    assert books.booking.cuts == dict.fromkeys(CUT_REASONS, 0) | {"long_replies": 2}
    assert len(books.records) == 2


def test_stats_reach_the_recorder(books: Books, frames: Any) -> None:
    """A relay's report is booked under its worker, and its time is kept for the health check."""
    books.now_ns += 123
    books.apply(frames.batch(stats=frames.stats(tap_dropped_reads=5)))
    assert books.store.counter(m.TAP_DROPPED_READS, ("0",)).value == 5
    assert books.link.stats_ns == books.now_ns


def test_a_large_batch_lets_others_run(books: Books, frames: Any) -> None:
    """They should run every READS_PER_BREATH reads, and may after each request that begins or ends."""
    numbers = range(1, 6)
    reads = [frames.read(1, b"x")] * (3 * READS_PER_BREATH + 5)
    opens, closes = [frames.open(number) for number in numbers], [frames.close(number) for number in numbers]
    assert books.apply(frames.batch(opens=opens, reads=reads, closes=closes)) == [False] * 5 + [True] * 3 + [False] * 5


# --- once


def test_what_is_sent_again_is_booked_once(books: Books, frames: Any) -> None:
    """A close that is told again on the same connection or the next adds nothing."""
    books.apply(frames.whole(1, 2))
    books.apply(frames.told_again(1))
    books.apply(frames.told_again(1, 2), link=books.connect())
    assert len(books.records) == 2
    assert (books.requests("ok"), books.tokens("completion")) == (2, 6)
    assert books.booking.duplicates == 3
    assert (books.in_flight(), books.booking.open_requests) == (0, 0)


def test_an_earlier_life_is_asked_for(books: Books, frames: Any) -> None:
    """Only what may have been booked before this process began is suspect: told again, or older than its connection."""
    books.now_ns = frames.base_ns + int(2.5e9)
    link = books.connect()
    batch = frames.batch(opens=[frames.open(1), frames.open(3), frames.again(4)])
    assert books.booking.suspects(link, batch) == [frames.open(1).request_id, frames.open(4).request_id]


def test_what_this_life_booked_is_known_while_its_commit_is_under_way(books: Books, frames: Any) -> None:
    """The ledger says that it has no such request."""
    books.apply(frames.whole(1))
    books.apply(frames.told_again(1), booked=())
    assert (len(books.records), books.requests("ok"), books.booking.duplicates) == (1, 1, 1)


def test_what_is_forgotten_while_the_ledger_is_asked(
    books: Books, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others' requests may crowd an id out here: so the ledger is asked for those that are known as well."""
    books.apply(frames.whole(1))
    booked = books.booking.suspects(books.link, frames.told_again(1))
    monkeypatch.setattr(books.booking, "_recent", booking_module.RecentIds())
    books.apply(frames.told_again(1), booked=booked)
    assert (len(books.records), books.requests("ok")) == (1, 1)


def test_without_commits_no_id_is_forgotten(frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a full disk nobody else knows what was booked."""
    monkeypatch.setattr(booking_module, "RecentIds", functools.partial(booking_module.RecentIds, 2))
    books = Books(frames, may_forget=lambda: False)
    for number in range(1, 10):
        books.apply(frames.whole(number))
    books.apply(frames.told_again(*range(1, 10)))
    assert (len(books.records), books.requests("ok"), books.booking.duplicates) == (9, 9, 9)


def test_what_the_ledger_knows_is_not_booked(books: Books, frames: Any) -> None:
    """A suspect that the ledger has counts for nothing: no record, no tokens, not in flight."""
    batch = frames.told_again(1, 2)
    books.apply(batch, booked={frames.open(1).request_id})
    assert [record.request_id for record in books.records] == [frames.open(2).request_id]
    assert (books.requests("ok"), books.booking.duplicates, books.in_flight()) == (1, 1, 0)


def test_the_same_request_from_two_sources(books: Books, frames: Any) -> None:
    """Open on a connection and found in a spool file: whichever close comes first is booked."""
    books.apply(frames.batch(opens=[frames.open(1)]))
    spool = Link(frames.hello(), books.now_ns)
    books.apply(frames.told_again(1), link=spool)
    books.apply(frames.batch(closes=[frames.close(1)]))
    assert len(books.records) == 1
    assert (books.requests("ok"), books.in_flight()) == (1, 0)


# --- dead relays


def test_a_dead_relays_requests_are_interrupted(books: Books, frames: Any) -> None:
    """After the grace they are booked with the tokens seen so far, at the time of the loss."""
    books.apply(frames.batch(opens=[frames.open(1, stream=True)], heads=[frames.head(1, "text/event-stream")]))
    books.apply(frames.batch(reads=[frames.event(1, "a", 1, 100), frames.event(1, "b", 2, 130)]))
    lost_ns = frames.base_ns + 3_000_000_000
    books.booking.lost(books.link, lost_ns)
    books.expire(lost_ns + GRACE_NS - 1)
    assert books.records == []
    books.expire(lost_ns + GRACE_NS)
    (record,) = books.records
    assert (record.outcome, record.error) == (Outcome.INTERRUPTED, ErrorType.RELAY_DIED)
    assert (record.prompt_tokens, record.completion_tokens, record.duration_s) == (7, 2, 2.0)
    assert (books.requests("interrupted"), books.in_flight(), books.booking.open_requests) == (1, 0, 0)
    books.expire(lost_ns + 10 * GRACE_NS)
    assert len(books.records) == 1


def test_a_relay_that_is_known_to_be_dead_gets_no_grace(books: Books, frames: Any) -> None:
    """Nobody else knows of its requests: they are booked before anything can happen to us."""
    books.apply(frames.batch(opens=[frames.open(1, stream=True)]))
    books.booking.lost(books.link, books.now_ns)
    books.expire(books.now_ns, lambda _: True)
    assert books.records == []
    books.expire(books.now_ns, lambda pid: pid != books.link.pid)
    assert [record.outcome for record in books.records] == [Outcome.INTERRUPTED]


def test_a_reconnect_takes_open_requests_up(books: Books, frames: Any) -> None:
    """The same process on a new connection goes on with its streams: what was seen before still counts."""
    books.apply(frames.batch(opens=[frames.open(1, stream=True)], heads=[frames.head(1, "text/event-stream")]))
    books.apply(frames.batch(reads=[frames.event(1, "a", 1, 100)]))
    books.booking.lost(books.link, books.now_ns)
    books.now_ns += GRACE_NS // 2
    link = books.connect()
    batch = frames.batch(opens=[frames.again(1, stream=True)])
    assert books.booking.suspects(link, batch) == []
    books.apply(batch, link=link)
    books.apply(frames.batch(reads=[frames.event(1, "d", 4, 900)], closes=[frames.close(1, usages={})]), link=link)
    books.expire(books.now_ns + 10 * GRACE_NS)
    (record,) = books.records
    assert record.ttft_s == pytest.approx(0.1)
    assert record.completion_tokens == 4
    assert record.gap_count == 0  # what came while nobody listened has no gap
    assert books.in_flight() == 0


def test_a_reconnect_in_the_midst_takes_the_rest_up(books: Books, frames: Any) -> None:
    """While a lost relay's requests are booked, others run: what is not booked yet goes on if the relay is back."""
    books.apply(frames.batch(opens=[frames.open(number) for number in (1, 2, 3)]))
    books.booking.lost(books.link, books.now_ns)
    expiring = books.booking.expire(books.now_ns + GRACE_NS)
    next(expiring)
    link = books.connect()
    assert list(expiring) == []
    books.apply(frames.told_again(1, 2, 3), link=link)
    assert [record.outcome for record in books.records] == [Outcome.INTERRUPTED, Outcome.OK, Outcome.OK]
    assert (books.in_flight(), books.booking.open_requests, books.booking.duplicates) == (0, 0, 1)
    assert books.expire(books.now_ns + 10 * GRACE_NS) == 0


def test_another_process_takes_nothing_up(books: Books, frames: Any) -> None:
    """A new life of the same worker does not inherit the old one's requests."""
    books.apply(frames.batch(opens=[frames.open(1)]))
    books.booking.lost(books.link, books.now_ns)
    books.connect(boot="another")
    books.expire(books.now_ns + GRACE_NS)
    assert [record.outcome for record in books.records] == [Outcome.INTERRUPTED]


def test_a_late_close_of_an_interrupted_request_is_a_duplicate(books: Books, frames: Any) -> None:
    """A relay that comes back after its grace finds its requests booked; they are not booked twice."""
    books.apply(frames.batch(opens=[frames.open(1)]))
    books.booking.lost(books.link, books.now_ns)
    books.expire(books.now_ns + GRACE_NS)
    books.apply(frames.told_again(1), link=books.connect())
    assert [record.outcome for record in books.records] == [Outcome.INTERRUPTED]
    assert books.in_flight() == 0


def test_goodbye_leaves_nothing_open(books: Books, frames: Any) -> None:
    """What a relay did not close before its goodbye is interrupted at once."""
    books.apply(frames.batch(opens=[frames.open(1)]))
    books.booking.left(books.link, books.now_ns)
    assert [record.outcome for record in books.records] == [Outcome.INTERRUPTED]


def test_a_relay_without_open_requests_leaves_no_trace(books: Books, frames: Any) -> None:
    """Losing an idle connection books nothing."""
    books.apply(frames.whole(1))
    books.booking.lost(books.link, books.now_ns)
    books.expire(books.now_ns + GRACE_NS)
    assert len(books.records) == 1


def test_a_spool_file_that_ends_early_books_nothing_more(books: Books, frames: Any) -> None:
    """What a spool file opened and did not close is forgotten, not interrupted."""
    spool = Link(frames.hello(), books.now_ns)
    books.apply(frames.batch(opens=[frames.again(1)]), link=spool)
    books.booking.drop(spool)
    assert books.records == []
    assert (books.in_flight(), books.booking.open_requests, books.booking.orphans) == (0, 0, 1)


# --- the fence


class Faulty(Exchange):
    """Fails where it is told to."""

    stage = ""

    def __init__(self, opened: Open) -> None:
        self._fail_at("open")
        super().__init__(opened)

    def head(self, head: Head) -> None:
        self._fail_at("head")
        super().head(head)

    def read(self, stamp_ns: int, data: bytes) -> None:
        if data:
            self._fail_at("read")
        super().read(stamp_ns, data)

    def close(self, close: Close) -> RequestRecord:
        self._fail_at("close")
        return super().close(close)

    def interrupted(self, stamp_ns: int) -> RequestRecord:
        self._fail_at("close")
        return super().interrupted(stamp_ns)

    def drain_gaps(self) -> list[tuple[float, int]]:
        self._fail_at("gaps")
        return super().drain_gaps()

    def _fail_at(self, stage: str) -> None:
        if stage == self.stage:
            raise ZeroDivisionError("the answer was: SECRET")


def faulty(stage: str) -> type[Faulty]:
    return type("Failing", (Faulty,), {"stage": stage, "__slots__": ()})


@pytest.mark.parametrize("stage", ["head", "read"])
def test_a_fault_costs_only_what_the_close_does_not_tell(frames: Any, stage: str, caplog: Any) -> None:
    """The request is booked from its close with all its tokens, others are not touched, and no content is logged."""
    books = Books(frames, exchange=faulty(stage))
    books.apply(frames.whole(1))
    (record,) = books.records
    assert (record.prompt_tokens, record.completion_tokens, record.operation) == (7, 3, "chat")
    assert books.tokens("completion") == 3
    assert books.observer_errors(stage) == 1
    assert books.in_flight() == 0
    assert f"stage={stage} error=ZeroDivisionError" in caplog.text
    assert "SECRET" not in caplog.text


def test_a_fault_in_the_gaps_of_a_stream(frames: Any) -> None:
    """A stream whose gaps cannot be had is given up and booked from its close."""
    books = Books(frames, exchange=faulty("gaps"))
    books.apply(frames.batch(opens=[frames.open(1, stream=True)], heads=[frames.head(1, "text/event-stream")]))
    books.apply(frames.batch(reads=[frames.event(1, "a", 1, 100), frames.event(1, "b", 2, 130)]))
    assert books.observer_errors("gaps") == 1
    books.apply(frames.batch(reads=[frames.event(1, "c", 3, 140)], closes=[frames.close(1)]))
    assert [record.completion_tokens for record in books.records] == [3]


def test_a_faulty_watcher_costs_only_its_own_view(frames: Any) -> None:
    """The record is in the journal before anybody watches it, and the next watcher has it all the same."""
    seen: list[RequestRecord] = []

    def broken(_: RequestRecord) -> None:
        raise ZeroDivisionError

    books = Books(frames, watchers=(("attribution", broken), ("anomalies", seen.append)))
    books.apply(frames.batch(opens=[frames.open(1)], closes=[frames.close(1)]))
    assert len(books.records) == 1
    assert seen == books.records
    assert (books.observer_errors("attribution"), books.observer_errors("anomalies")) == (1, 0)


@pytest.mark.parametrize("stage", ["open", "close"])
def test_a_fault_everywhere_still_books_the_request(frames: Any, stage: str) -> None:
    """When nothing of the exchange works, what the transport knows is booked."""
    books = Books(frames, exchange=faulty(stage))
    books.apply(frames.whole(1))
    (record,) = books.records
    assert (record.outcome, record.status, record.prompt_tokens) == (Outcome.OK, 200, None)
    assert record.duration_s == 0.5
    assert books.observer_errors(stage) >= 1
    assert books.store.gauge(m.REQUESTS_IN_FLIGHT, ("qwen", "acme", "other")).value in {0, None}


def test_a_fault_in_an_interrupted_request(frames: Any) -> None:
    """The fence holds at the death of a relay as well."""
    books = Books(frames, exchange=faulty("close"))
    books.apply(frames.batch(opens=[frames.open(1)]))
    books.booking.left(books.link, books.now_ns)
    assert [record.outcome for record in books.records] == [Outcome.INTERRUPTED]


def test_a_record_that_cannot_be_counted_is_kept(books: Books, frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the recorder is counted; the record goes to the ledger, so its relay does not send it for ever."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError("cannot")

    monkeypatch.setattr(books.booking._recorder, "finished", fail)
    books.apply(frames.whole(1))
    assert len(books.records) == 1
    assert books.observer_errors("record") == 1


def test_the_same_fault_is_logged_once_a_minute(frames: Any, caplog: Any) -> None:
    """A thousand faults are a count of a thousand and one line."""
    books = Books(frames, exchange=faulty("read"))
    books.apply(frames.whole(*range(1000)))
    assert books.observer_errors("read") == 1000
    assert caplog.text.count("observer_fault") == 1


# --- bounds


def test_above_the_bound_answers_are_not_read(frames: Any) -> None:
    """Requests beyond `max_watched` are booked by their close, and counted as not watched."""
    books = Books(frames, max_watched=2)
    books.apply(frames.whole(1, 2, 3, 4))
    assert [record.completion_tokens for record in books.records] == [3, 3, 3, 3]
    assert [record.events for record in books.records] == [0, 0, 0, 0]
    assert books.booking.unwatched == 2
    assert (books.booking.open_requests, books.tokens("completion")) == (0, 12)


def test_opens_without_end_are_a_broken_peer(frames: Any) -> None:
    """A relay that never closes anything is refused; when its connection ends, all it opened is booked."""
    books = Books(frames, max_open=3)
    with pytest.raises(FrameError, match="expected no more than 3"):
        books.apply(frames.batch(opens=[frames.open(number) for number in range(1, 9)]))
    books.booking.lost(books.link, books.now_ns)
    books.expire(books.now_ns + GRACE_NS)
    assert len(books.records) == 3
    assert books.booking.open_requests == 0


def test_plain_replies_together_are_bounded(frames: Any) -> None:
    """Above `max_plain_bytes` a reply is not kept; its tokens come from the close, and the room is free again."""
    size = len(frames.plain_reply)
    books = Books(frames, max_plain_bytes=2 * size)
    for number in (1, 2, 3):
        books.apply(
            frames.batch(
                opens=[frames.open(number)],
                heads=[frames.head(number)],
                reads=[frames.read(number, frames.plain_reply)],
            )
        )
    assert books.booking.plain_given_up == 1
    books.apply(frames.batch(closes=[frames.close(number) for number in (1, 2, 3)]))
    assert [record.completion_tokens for record in books.records] == [3, 3, 3]
    books.apply(frames.whole(4, 5))
    assert books.booking.plain_given_up == 1


def test_streams_do_not_count_as_plain(frames: Any) -> None:
    """A stream of any length takes no room of the plain replies."""
    books = Books(frames, max_plain_bytes=10)
    books.apply(frames.batch(opens=[frames.open(1, stream=True)], heads=[frames.head(1, "text/event-stream")]))
    books.apply(frames.batch(reads=[frames.event(1, "a", 1, 10), frames.event(1, "b", 2, 20)]))
    assert books.booking.plain_given_up == 0


def test_frames_of_nobody_are_counted(books: Books, frames: Any) -> None:
    """Head, read and close of a request that was never opened are left aside."""
    books.apply(frames.batch(heads=[frames.head(9)], reads=[frames.read(9, b"x")], closes=[frames.close(9)]))
    assert (books.booking.orphans, books.records) == (3, [])


def test_request_bodies_are_not_kept(frames: Any) -> None:
    """An open request that is not watched does not hold its body."""
    books = Books(frames, max_watched=0)
    books.apply(frames.batch(opens=[frames.open(1, body=b"x" * 100_000)]))
    assert books.link.entries[1].opened.body == b""


def test_ids_are_not_forgotten_before_a_relay_may_send_them_again() -> None:
    """What is remembered covers more than the relays keep unacknowledged in memory."""
    recent = booking_module.RecentIds()
    for number in range(10_000):
        recent.add(str(number))
    assert all(str(number) in recent for number in range(10_000))


# --- the bare record


@pytest.mark.parametrize(
    ("changes", "outcome", "error"),
    [
        ({}, Outcome.OK, ErrorType.NONE),
        ({"outcome": "client_abort"}, Outcome.CLIENT_ABORT, ErrorType.NONE),
        ({"outcome": "upstream_error", "error": "connect_failed"}, Outcome.UPSTREAM_ERROR, ErrorType.CONNECT_FAILED),
        ({"outcome": "of a newer version", "error": "unheard of"}, Outcome.STREAM_ERROR, ErrorType.INTERNAL),
    ],
)
def test_bare_record(frames: Any, changes: dict[str, str], outcome: Outcome, error: ErrorType) -> None:
    """What the transport knows, and nothing else."""
    record = bare_record(frames.open(1, user="u"), frames.close(1, **changes))
    assert (record.outcome, record.error) == (outcome, error)
    assert (record.duration_s, record.sent_s, record.head_s) == (0.5, 0.001, 0.01)
    assert (record.prompt_tokens, record.token_source, record.ttft_s) == (None, TokenSource.NONE, None)
    assert (record.user, record.route) == ("u", "other")


# --- budgets


class Budgets:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.fault: Exception | None = None

    def opened(self, opened: Open) -> None:
        if self.fault is not None:
            raise self.fault
        self.told.append(("opened", opened.request_id))
        self.bodies.append(opened.body)

    def closed(self, request_id: str) -> None:
        self.told.append(("closed", request_id))


def test_budgets_hear_of_each_request_once_and_keep_no_body(frames: Any) -> None:
    """Its record ends it; who was booked before is told as closed, if it was told at all."""
    budgets = Budgets()
    books = Books(frames, budgets=budgets)
    first = frames.open(1)
    books.apply(frames.whole(1))
    assert budgets.told == [("opened", first.request_id)]
    assert budgets.bodies == [b""]
    books.apply(frames.whole(1))
    assert budgets.told == [("opened", first.request_id), ("closed", first.request_id)]


def test_what_is_dropped_holds_nothing(frames: Any) -> None:
    """The relay tells the rest elsewhere."""
    budgets = Budgets()
    books = Books(frames, budgets=budgets)
    opened = frames.open(1)
    books.apply(frames.batch(opens=[opened]))
    books.booking.drop(books.link)
    assert budgets.told == [("opened", opened.request_id), ("closed", opened.request_id)]


def test_a_fault_of_budgets_costs_no_record(frames: Any) -> None:
    """It is counted, and the answer is read all the same."""
    budgets = Budgets()
    budgets.fault = ValueError()
    books = Books(frames, budgets=budgets)
    books.apply(frames.whole(1))
    assert books.observer_errors("budgets") == 1
    assert books.tokens("completion") == 3
