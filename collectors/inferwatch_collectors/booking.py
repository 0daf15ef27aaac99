"""From what relays tell to finished records: who is open, who was booked, what becomes of a dead relay's requests.

Pure but for the fence's log: no sockets, no files, no clock; `now_ns` is CLOCK_MONOTONIC and comes from the caller.

* **Once.** A `request_id` becomes a record once. What a relay sends again (`resumed`, or older than its connection) and
  what comes from a spool file is looked up in the ledger by the caller (`suspects`); what this process booked lately
  is known here. Both are asked: a commit may still be under way, and what is known here may be forgotten meanwhile.
* **Always.** A `Close` with its `Open` is enough. If reading an answer fails, which is a bug of ours, that exchange is
  given up at the fence and the request is booked from its `Close` alone, at worst without tokens.
* **Dead relays.** A connection that ends without `Bye` is parked for GRACE_NS, or until its process is known to be
  dead: until then nobody else knows of its requests. A new connection of the same `boot` takes them up; otherwise they
  are booked as `interrupted` with what was seen.
* **Bounds.** Above MAX_WATCHED open requests, answers are not read (their Close still books them); above MAX_OPEN the
  peer is broken; above MAX_PLAIN_BYTES in unfinished plain replies, the next ones are given up.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Protocol, TypeVar

from msgspec.structs import replace

from inferwatch.record import RequestRecord
from inferwatch.tap import Batch, Close, FrameError, Head, Hello, Open, Read
from inferwatch_collectors.bare_record import bare_record, death
from inferwatch_collectors.cardinality import OTHER
from inferwatch_collectors.dialects.base import CUT_REASONS
from inferwatch_collectors.exchange import Exchange
from inferwatch_collectors.fence import Fence
from inferwatch_collectors.ledger.recent_ids import RecentIds
from inferwatch_collectors.listening import Audience, Audiences
from inferwatch_collectors.neighbours import Blocked, Neighbours, noted
from inferwatch_collectors.open_requests import Entry, Link
from inferwatch_collectors.recorder import Recorder

NS_PER_S: Final = 1_000_000_000

# A relay reconnects at once and then every second at most.
GRACE_NS: Final = 2 * NS_PER_S

# An exchange is about 2 kB: 100 MB. A relay process has no more file descriptors than that in most containers.
MAX_WATCHED: Final = 50_000

# Without an exchange a request is its Open, some 1.5 kB. More than this is a relay that has lost count.
MAX_OPEN: Final = 200_000

# All plain replies that are being received, together. One alone is bounded by `dialects.body`.
MAX_PLAIN_BYTES: Final = 128 * 1024 * 1024

# Reads between two breaths of `apply`: some 0.1 ms of digesting. Where a relay shares our core it gets it then; the
# kernel alone would let us finish our slice of about 3 ms, and tokens would wait for it (measured).
READS_PER_BREATH: Final = 20

# (stage, what takes each record): see `Booking`.
Watcher = tuple[str, Callable[[RequestRecord], object]]

T = TypeVar("T")


class Budgets(Protocol):
    """Who must know what runs."""

    def opened(self, opened: Open) -> None:
        """A request runs, without its body."""

    def closed(self, request_id: str) -> None:
        """It does not, and no record of it comes."""


class Booking:
    """All open requests of all relays. `sink` takes each new record, after the recorder counted it.

    Then the `watchers` have it, each behind the fence: the record is safe, and a fault of theirs costs only their view.
    At last those of the `audiences` who heard what was said. `may_forget` tells whether records become durable.
    """

    def __init__(
        self,
        recorder: Recorder,
        sink: Callable[[RequestRecord], None],
        *,
        watchers: Sequence[Watcher] = (),
        budgets: Budgets | None = None,
        exchange: Callable[..., Exchange] = Exchange,
        audiences: Sequence[tuple[str, Audience]] = (),
        may_forget: Callable[[], bool] = lambda: True,
        max_watched: int = MAX_WATCHED,
        max_open: int = MAX_OPEN,
        max_plain_bytes: int = MAX_PLAIN_BYTES,
    ) -> None:
        self._recorder = recorder
        self._sink = sink
        self._watchers = watchers
        self._budgets = budgets
        self._unheard = exchange
        self._exchange = exchange
        self._max_watched = max_watched
        self._max_open = max_open
        self._max_plain_bytes = max_plain_bytes
        self._recent = RecentIds(may_forget=may_forget)
        self.neighbours = Neighbours()
        self._parked: dict[str, tuple[Link, int]] = {}  # by boot, with the time of the loss
        self._fence = Fence(recorder.observer_error)
        if audiences:
            self._exchange = functools.partial(exchange, listen=Audiences(audiences, self._fence).opened)
        self._plain_bytes = 0
        self.open_requests = 0
        self.orphans = 0  # frames of a request that was never opened
        self.unwatched = 0  # requests whose answer was not read, because there were too many
        self.plain_given_up = 0  # plain replies not read, because there was too much of them
        self.duplicates = 0  # requests told again that were booked before
        self.cuts = dict.fromkeys(CUT_REASONS, 0)  # answers of which a bound cut something off, by the bound

    # --- connections

    def connect(self, hello: Hello, now_ns: int) -> Link:
        """Begin a connection; it takes up what a lost one of the same process left open."""
        link = Link(hello, now_ns)
        parked = self._parked.pop(hello.boot, None)
        if parked is not None:
            link.entries, parked[0].entries = parked[0].entries, {}
        return link

    def lost(self, link: Link, now_ns: int) -> None:
        """The connection ended without `Bye`."""
        self._recorder.relays.gone(link.worker, link.boot)
        if link.entries:
            self._parked[link.boot] = (link, now_ns)

    def left(self, link: Link, now_ns: int) -> None:
        """The relay said `Bye`: what it did not close, nobody will."""
        self._recorder.relays.gone(link.worker, link.boot)
        for number in list(link.entries):
            self._interrupt(link, number, now_ns)

    def expire(self, now_ns: int, is_alive: Callable[[int], bool] = lambda _: True) -> Iterator[None]:
        """Book what lost relays left open and nobody took up in time, or can any more: `is_alive` asks for a pid.

        Yields after each request: a relay may leave thousands, of as many streams.
        """
        for boot, (link, lost_ns) in list(self._parked.items()):
            if now_ns - lost_ns >= GRACE_NS or not is_alive(link.pid):
                # What is not booked yet can still be taken up while others run.
                for number in list(link.entries):
                    if number in link.entries:
                        self._interrupt(link, number, lost_ns)
                        yield
                if self._parked.get(boot, (None,))[0] is link:
                    del self._parked[boot]

    def drop(self, link: Link) -> None:
        """Forget what is open without booking it: the end of a spool file, whose relay tells the rest elsewhere."""
        for number in list(link.entries):
            entry = self._forget(link, number)
            if entry is not None:
                self.orphans += 1
                self._recorder.closed(entry.opened.request_id)
                self._left_budgets(entry)

    # --- frames

    def suspects(self, link: Link, batch: Batch) -> list[str]:
        """Return the ids in `batch` that an earlier life of the collector may have booked: ask the ledger."""
        return [
            opened.request_id
            for opened in batch.opens
            if (opened.resumed or opened.arrival_ns < link.connected_ns) and not self._taken_up(link, opened)
        ]

    def apply(self, link: Link, batch: Batch, booked: AbstractSet[str], now_ns: int) -> Iterator[bool]:
        """Take one batch; `booked` are those of its `suspects` that the ledger knows.

        Yields after each step, so that the caller can let others run: true where it should, false where it may. The
        batch is applied when the iterator is exhausted.

        Raises:
            FrameError: the peer opens requests and never closes any.
        """
        for opened in batch.opens:
            self._open(link, opened, booked, now_ns)
            yield False
        for head in batch.heads:
            self._head(link, head, now_ns)
        touched: dict[int, Entry] = {}
        reads = batch.reads
        for start in range(0, len(reads), READS_PER_BREATH):
            self._reads(link, reads[start : start + READS_PER_BREATH], touched, now_ns)
            if start + READS_PER_BREATH <= len(reads):
                yield True
        for close in batch.closes:
            touched.pop(close.id, None)
            self._close(link, close, now_ns)
            yield False
        for entry in touched.values():
            self._drain_gaps(entry, now_ns)
            if entry.prompt is not None and entry.prompt.end_ns is None:
                self._fence.run("neighbours", now_ns, self._prefilled, entry)
        if batch.stats is not None:
            link.stats_ns = now_ns
            link.told_ns = batch.stats.stamp_ns
            link.lag_ns = batch.stats.loop_lag_max_ns
            self._recorder.relays.stats(link.worker, link.boot, batch.stats)

    # --- one request

    def _taken_up(self, link: Link, opened: Open) -> bool:
        entry = link.entries.get(opened.id)
        return entry is not None and entry.opened.request_id == opened.request_id

    def _open(self, link: Link, opened: Open, booked: AbstractSet[str], now_ns: int) -> None:
        before = link.entries.get(opened.id)
        if before is not None and before.opened.request_id == opened.request_id:
            if before.exchange is not None:  # what was on its way when the connection broke is missing
                self._fenced("read", before, now_ns, before.exchange.read, now_ns, b"")
            return
        if self.open_requests >= self._max_open:
            raise FrameError(f"{self.open_requests} requests open, expected no more than {self._max_open}")
        if before is not None:
            self._forget(link, opened.id)
        entry = Entry(opened)
        link.entries[opened.id] = entry
        self.open_requests += 1
        if opened.request_id in booked or opened.request_id in self._recent:
            return
        if self.open_requests > self._max_watched:
            self.unwatched += 1
        else:
            entry.exchange = self._fenced("open", entry, now_ns, self._exchange, opened)
        operation = OTHER
        if entry.exchange is not None:
            operation = entry.exchange.operation
            entry.opened = entry.exchange.opened  # the same without the body
        elif opened.body:
            entry.opened = replace(opened, body=b"")
        entry.labels = self._recorder.opened(opened, operation, now_s=now_ns / NS_PER_S)
        if self._budgets is not None:
            self._fence.run("budgets", now_ns, self._budgets.opened, entry.opened)
        if operation != OTHER:
            entry.prompt = self.neighbours.opened(entry.opened, entry.labels.tenant)

    def _head(self, link: Link, head: Head, now_ns: int) -> None:
        entry = link.entries.get(head.id)
        if entry is None:
            self.orphans += 1
        elif entry.exchange is not None:
            entry.plain = not head.headers.get("content-type", "").startswith("text/event-stream")
            self._fenced("head", entry, now_ns, entry.exchange.head, head)

    def _reads(self, link: Link, reads: list[Read], touched: dict[int, Entry], now_ns: int) -> None:
        """Take copies of answers; `touched` gathers the requests whose they are."""
        entries = link.entries
        for number, stamp_ns, data in reads:
            entry = entries.get(number)
            if entry is None:
                self.orphans += 1
            elif entry.exchange is not None:
                touched[number] = entry
                if entry.plain and self._too_much(entry, len(data)):
                    data = b""  # noqa: PLW2901 - the mark of a missing copy: it lets go of what it kept
                try:
                    entry.exchange.read(stamp_ns, data)
                except Exception as error:  # noqa: BLE001 - the fence, as in `_fenced`: a call less for each token
                    entry.exchange = None
                    self._fence.caught("read", now_ns, error)

    def _too_much(self, entry: Entry, size: int) -> bool:
        if self._plain_bytes + size > self._max_plain_bytes:
            self.plain_given_up += 1
            self._release_plain(entry)
            entry.plain = False
            return True
        entry.plain_bytes += size
        self._plain_bytes += size
        return False

    def _close(self, link: Link, close: Close, now_ns: int) -> None:
        entry = self._forget(link, close.id)
        if entry is None:
            self.orphans += 1
            return
        if entry.labels is None or entry.opened.request_id in self._recent:
            self._duplicate(entry)
            return
        record: RequestRecord | None = None
        if entry.exchange is not None:
            record = self._fenced("close", entry, now_ns, entry.exchange.close, close)
        if record is None:
            record = self._fenced("close", entry, now_ns, self._from_close_alone, entry.opened, close)
        self._book(entry, record or bare_record(entry.opened, close), now_ns)

    def _interrupt(self, link: Link, number: int, stamp_ns: int) -> None:
        entry = link.entries[number]
        if entry.exchange is None or entry.labels is None:
            self._close(link, death(number, stamp_ns), stamp_ns)
            return
        self._forget(link, number)
        if entry.opened.request_id in self._recent:
            self._duplicate(entry)
            return
        record = self._fenced("close", entry, stamp_ns, entry.exchange.interrupted, stamp_ns)
        self._book(entry, record or bare_record(entry.opened, death(number, stamp_ns)), stamp_ns)

    def _from_close_alone(self, opened: Open, close: Close) -> RequestRecord:
        exchange = self._unheard(opened)
        exchange.read(close.stamp_ns, b"")  # nothing of the answer was read, which is not the same as an empty answer
        return exchange.close(close)

    def _book(self, entry: Entry, record: RequestRecord, now_ns: int) -> None:
        self._drain_gaps(entry, now_ns)
        self._recent.add(record.request_id)
        blocked = None
        if record.stream or entry.prompt is not None or record.queue_s is not None:  # else there is nothing to account
            blocked = self._fence.run("neighbours", now_ns, self._account, entry, record)
        if blocked is not None:
            record = noted(record, blocked)
        record = self._fence.run("price", now_ns, self._recorder.pricing.priced, record) or record
        if entry.exchange is not None and entry.exchange.cuts:
            for reason in entry.exchange.cuts:
                self.cuts[reason] += 1
        # A record that cannot be counted is kept all the same: refused, the relay would send it again for ever.
        self._fence.run("record", now_ns, self._count, record, now_ns)
        if blocked is not None and blocked.total_ns:
            self._fence.run("neighbours", now_ns, self._recorder.phases.delayed, record.tenant, blocked)
        self._sink(record)
        for stage, watch in self._watchers:
            self._fence.run(stage, now_ns, watch, record)
        if entry.exchange is not None and entry.exchange.listener is not None:
            entry.exchange.listener.closed(record)

    def _count(self, record: RequestRecord, now_ns: int) -> None:
        self._recorder.finished(record, now_s=now_ns / NS_PER_S)

    def _duplicate(self, entry: Entry) -> None:
        self.duplicates += 1
        self._recorder.closed(entry.opened.request_id)
        self._left_budgets(entry)

    def _left_budgets(self, entry: Entry) -> None:
        if self._budgets is not None:
            self._budgets.closed(entry.opened.request_id)

    def _forget(self, link: Link, number: int) -> Entry | None:
        entry = link.entries.pop(number, None)
        if entry is not None:
            self.open_requests -= 1
            if entry.plain_bytes:
                self._release_plain(entry)
            if entry.prompt is not None:
                self.neighbours.left(entry.prompt)
        return entry

    def _release_plain(self, entry: Entry) -> None:
        self._plain_bytes -= entry.plain_bytes
        entry.plain_bytes = 0

    def _drain_gaps(self, entry: Entry, now_ns: int) -> None:
        if (entry.plain and not entry.opened.stream) or entry.exchange is None or entry.labels is None:
            return
        gaps = self._fenced("gaps", entry, now_ns, entry.exchange.drain_gaps)
        if gaps:
            self._recorder.gaps(entry.labels, gaps)

    def _prefilled(self, entry: Entry) -> None:
        exchange = entry.exchange
        if entry.prompt is not None and exchange is not None and exchange.first_token_ns >= 0:
            self.neighbours.first_token(entry.prompt, exchange.first_token_ns, *exchange.prompt_counts)

    def _account(self, entry: Entry, record: RequestRecord) -> Blocked | None:
        largest_gap = None if entry.exchange is None else entry.exchange.largest_gap
        return self.neighbours.account(entry.opened, entry.prompt, record, largest_gap)

    def _fenced(self, stage: str, entry: Entry, now_ns: int, step: Callable[..., T], *args: object) -> T | None:
        """Run one step of reading an answer. After a fault nothing more is read of it: None."""
        try:
            return step(*args)
        except Exception as error:  # noqa: BLE001 - the fence; its `run` does not tell a fault from a result that is None
            entry.exchange = None
            self._fence.caught(stage, now_ns, error)
            return None
