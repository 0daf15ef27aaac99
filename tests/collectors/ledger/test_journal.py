"""From records to commits: nothing is called durable before it is, and nothing grows without bound."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from inferwatch.record import LateCount, Outcome, RequestRecord, Share
from inferwatch_collectors.ledger import journal as journal_module
from inferwatch_collectors.ledger.base import LedgerError, LedgerFault, MetricRow
from inferwatch_collectors.ledger.journal import COMMIT_RECORDS, Journal


class FakeLedger:
    """Commits when `gate` is set, unless it is told to fail."""

    def __init__(self) -> None:
        self.commits: list[tuple[list[str], list[MetricRow]]] = []
        self.shares: list[str] = []
        self.late: list[str] = []
        self.faults: list[LedgerFault | None] = []
        self.attempts = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.durable = True
        self.epoch = 0

    async def commit(
        self,
        records: Iterable[RequestRecord],
        metric_rows: Sequence[MetricRow],
        shares: Iterable[Share] = (),
        late: Iterable[LateCount] = (),
    ) -> None:
        self.attempts += 1
        await self.gate.wait()
        self._fail_if_told()
        self.commits.append(([record.request_id for record in records], list(metric_rows)))
        self.shares.extend(share.request_id for share in shares)
        self.late.extend(each.request_id for each in late)

    async def seen(self, request_ids: Iterable[str]) -> set[str]:
        self._fail_if_told()
        committed = {request_id for ids, _ in self.commits for request_id in ids}
        return committed & set(request_ids)

    def _fail_if_told(self) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise LedgerError(fault, "told to")

    @property
    def ids(self) -> list[str]:
        return [request_id for ids, _ in self.commits for request_id in ids]


class FakeValues:
    """One counter that grows with each record."""

    def __init__(self) -> None:
        self.value = 0
        self.dirty = False
        self.put_back_calls = 0

    def count(self) -> None:
        self.value += 1
        self.dirty = True

    def take_dirty(self) -> list[MetricRow]:
        dirty, self.dirty = self.dirty, False
        return [("requests", b"", str(self.value).encode())] if dirty else []

    def put_back(self, rows: Iterable[MetricRow]) -> None:
        self.put_back_calls += 1
        self.dirty |= bool(list(rows))

    def touch_all(self) -> None:
        self.dirty = True


class Rig:
    """A journal on fakes."""

    def __init__(self, frames: Any, **options: Any) -> None:
        self.ledger = FakeLedger()
        self.values = FakeValues()
        self.journal = Journal(self.ledger, self.values, **options)
        self._frames = frames
        self._number = 0

    def finish(self, count: int = 1) -> list[str]:
        """So many requests end, and are counted."""
        ids = []
        for _ in range(count):
            record = self._frames.record(self._number)
            self._number += 1
            self.values.count()
            self.journal.add(record)
            ids.append(record.request_id)
        return ids

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.002)


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    async with asyncio.TaskGroup() as group:
        group.create_task(rig.journal.run())
        try:
            yield rig
        finally:
            rig.ledger.gate.set()
            rig.journal.close()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(journal_module, "RETRY_MAX_S", 0.02)
    monkeypatch.setattr(journal_module, "LOOKUP_PAUSES_S", (0.001, 0.001))


async def test_records_and_counters_in_one_commit(frames: Any) -> None:
    """The counters of a commit include exactly the records committed so far."""
    async with running(Rig(frames)) as rig:
        first = rig.finish(3)
        assert await rig.journal.flush(5)
        second = rig.finish(2)
        assert await rig.journal.flush(5)
    assert rig.ledger.commits[0] == (first, [("requests", b"", b"3")])
    assert rig.ledger.commits[1] == (second, [("requests", b"", b"5")])


async def test_nothing_is_committed_before_the_ledger_says_so(frames: Any) -> None:
    """`committed` follows `position` only when the commit has succeeded, and listeners hear of it then."""
    async with running(Rig(frames)) as rig:
        heard: list[int] = []
        rig.journal.listeners.append(lambda: heard.append(rig.journal.committed))
        await rig.until(lambda: len(heard) == 1)  # the first commit has nothing
        rig.ledger.gate.clear()
        rig.finish(2)
        await rig.until(lambda: rig.ledger.attempts == 1)
        rig.finish(1)
        assert (rig.journal.position, rig.journal.committed, heard[1:]) == (3, 0, [])
        rig.ledger.gate.set()
        await rig.until(lambda: rig.journal.committed == 3)
        assert heard[1:] == [2, 3]


async def test_records_are_committed_together(frames: Any) -> None:
    """What ends within the interval shares a commit."""
    async with running(Rig(frames)) as rig:
        ids = rig.finish(20)
        await rig.until(lambda: rig.journal.committed == 20)
    assert [ids for ids, _ in rig.ledger.commits] == [ids]


async def test_many_records_do_not_wait(frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """COMMIT_RECORDS records are committed at once, whatever the interval."""
    monkeypatch.setattr(journal_module, "COMMIT_INTERVAL_S", 3600)
    async with running(Rig(frames)) as rig:
        await asyncio.sleep(0)
        rig.finish(1)
        await asyncio.sleep(0.01)
        assert rig.journal.committed == 0
        rig.finish(COMMIT_RECORDS)
        await rig.until(lambda: rig.journal.committed == COMMIT_RECORDS + 1)


async def test_counters_alone_are_committed_too(frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes without a finished request reaches the ledger after METRICS_INTERVAL_S."""
    monkeypatch.setattr(journal_module, "METRICS_INTERVAL_S", 0.01)
    async with running(Rig(frames)) as rig:
        rig.values.count()
        await rig.until(lambda: rig.ledger.commits == [([], [("requests", b"", b"1")])])


async def test_an_idle_journal_writes_nothing(frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without changes there is no transaction."""
    monkeypatch.setattr(journal_module, "METRICS_INTERVAL_S", 0.001)
    async with running(Rig(frames)) as rig:
        await asyncio.sleep(0.03)
    assert rig.ledger.attempts == 0


async def test_a_failing_ledger_is_tried_again(frames: Any, caplog: Any) -> None:
    """Records wait in order, counters are put back, nothing is durable meanwhile, and one line is logged."""
    rig = Rig(frames)
    rig.ledger.faults = [LedgerFault.FULL] * 4
    async with running(rig):
        ids = rig.finish(2)
        await rig.until(lambda: rig.journal.commit_failures >= 2)
        assert rig.journal.failing
        assert rig.journal.committed == 0
        ids += rig.finish(2)
        await rig.until(lambda: rig.journal.committed == 4)
        assert not rig.journal.failing
    assert rig.ledger.commits == [(ids, [("requests", b"", b"4")])]
    assert rig.values.put_back_calls == 4
    assert caplog.text.count("ledger_failed") == 1
    assert caplog.text.count("ledger_recovered") == 1


async def test_waiting_is_bounded(frames: Any) -> None:
    """Above the bound the oldest rows go and are counted; the counters still include them."""
    rig = Rig(frames, max_waiting=10)
    rig.ledger.faults = [LedgerFault.IO] * 3
    async with running(rig):
        ids = rig.finish(15)
        await rig.until(lambda: rig.journal.committed == 15)
    assert rig.journal.lost == 5
    assert rig.ledger.commits == [(ids[5:], [("requests", b"", b"15")])]


async def test_waiting_is_bounded_while_a_commit_hangs(frames: Any) -> None:
    """A disk that never answers does not fill the memory either."""
    rig = Rig(frames, max_waiting=10)
    async with running(rig):
        await asyncio.sleep(0)
        rig.ledger.gate.clear()
        rig.finish(1)
        await rig.until(lambda: rig.ledger.attempts == 1)
        rig.finish(500)
        assert rig.journal.waiting <= 20
        assert rig.journal.lost + rig.journal.waiting == 500


async def test_shares_go_with_the_next_commit(frames: Any) -> None:
    """A share is committed beside what there is, alone if there is nothing, once, and acknowledges nothing."""
    async with running(Rig(frames)) as rig:
        rig.finish(1)
        rig.journal.add_share(Share(request_id="a", wall_ns=1))
        assert await rig.journal.flush(5)
        rig.journal.add_share(Share(request_id="b", wall_ns=1))
        assert await rig.journal.flush(5)
        assert rig.journal.position == rig.journal.committed == 1
    assert rig.ledger.shares == ["a", "b"]
    assert [len(ids) for ids, _ in rig.ledger.commits] == [1, 0]


async def test_shares_wait_too(frames: Any) -> None:
    """While the ledger fails shares wait in order; above the bound the oldest go and are counted."""
    rig = Rig(frames, max_waiting=10)
    rig.ledger.faults = [LedgerFault.FULL] * 3
    async with running(rig):
        for number in range(13):
            rig.journal.add_share(Share(request_id=str(number), wall_ns=1))
        await rig.until(lambda: rig.ledger.shares != [])
    assert rig.ledger.shares == [str(number) for number in range(3, 13)]
    assert (rig.journal.lost_shares, rig.journal.lost) == (3, 0)


async def test_a_long_outage(frames: Any, caplog: Any) -> None:
    """Tens of thousands of records wait for a full disk, and each of them is there once when it has room again."""
    rig = Rig(frames)
    rig.ledger.faults = [LedgerFault.FULL] * 20
    async with running(rig):
        ids = []
        for _ in range(40):
            ids += rig.finish(500)
            await asyncio.sleep(0.002)
        await rig.until(lambda: rig.journal.committed == len(ids))
    assert rig.ledger.ids == ids
    assert rig.journal.lost == 0
    assert "fault=full" in caplog.text


async def test_flush_waits_for_what_was_there(frames: Any) -> None:
    """A flush during a commit waits for the next one, which has what was added since."""
    async with running(Rig(frames)) as rig:
        await asyncio.sleep(0)
        rig.ledger.gate.clear()
        rig.finish(1)
        await rig.until(lambda: rig.ledger.attempts == 1)
        rig.finish(1)
        flush = asyncio.get_running_loop().create_task(rig.journal.flush(10))
        await asyncio.sleep(0.01)
        assert not flush.done()
        rig.ledger.gate.set()
        assert await flush
        assert rig.journal.committed == 2


async def test_flush_gives_up(frames: Any) -> None:
    """A commit that hangs does not hold a scrape for longer than it asked for."""
    async with running(Rig(frames)) as rig:
        rig.ledger.gate.clear()
        rig.finish(1)
        assert not await rig.journal.flush(0.01)


async def test_flush_does_not_insist(frames: Any) -> None:
    """While the ledger is failing a flush returns at once and makes no attempt of its own."""
    rig = Rig(frames)
    rig.ledger.faults = [LedgerFault.LOCKED] * 1000
    async with running(rig):
        rig.finish(1)
        await rig.until(lambda: rig.journal.failing)
        assert not await rig.journal.flush(3600)
        rig.ledger.faults = []


async def test_a_fresh_store_gets_everything(frames: Any) -> None:
    """When the ledger had to begin afresh, all counters are handed over, not only what changed since."""
    async with running(Rig(frames)) as rig:
        rig.finish(5)
        assert await rig.journal.flush(5)
        rig.ledger.epoch = 1
        rig.ledger.commits.clear()
        assert await rig.journal.flush(5)
        assert rig.ledger.commits == [([], [("requests", b"", b"5")])]


async def test_the_last_commit_has_everything(frames: Any) -> None:
    """After `close` the run ends with all records committed."""
    async with running(Rig(frames)) as rig:
        ids = rig.finish(7)
    assert rig.ledger.ids == ids
    assert rig.journal.committed == 7


async def test_a_failing_ledger_does_not_prevent_the_end(frames: Any) -> None:
    """At the end one attempt is made; what failed stays unacknowledged with the relays."""
    rig = Rig(frames)
    rig.ledger.faults = [LedgerFault.FULL] * 1000
    async with running(rig):
        rig.finish(1)
        await rig.until(lambda: rig.journal.failing)
    assert rig.journal.committed == 0


async def test_seen_asks_again(frames: Any) -> None:
    """A look-up that fails for a moment is repeated."""
    rig = Rig(frames)
    (known,) = rig.finish(1)
    async with running(rig):
        assert await rig.journal.flush(5)
        rig.ledger.faults = [LedgerFault.LOCKED]
        assert await rig.journal.seen([known, "unknown"]) == {known}
    assert rig.journal.unsure == 0


async def test_seen_gives_up_and_says_so(frames: Any) -> None:
    """A ledger that cannot be asked is taken to know nothing, and how often is counted."""
    rig = Rig(frames)
    rig.ledger.faults = [LedgerFault.IO] * 3
    assert await rig.journal.seen(["a", "b"]) == set()
    assert rig.journal.unsure == 2


async def test_nothing_to_ask(frames: Any) -> None:
    """The usual batch has no suspects and costs no look-up."""
    rig = Rig(frames)
    rig.ledger.faults = [LedgerFault.IO] * 10
    assert await rig.journal.seen([]) == set()
    assert len(rig.ledger.faults) == 10


def a_late_count(request_id: str) -> LateCount:
    return LateCount(
        request_id=request_id,
        wall_ns=1,
        tenant="acme",
        model="qwen",
        operation="chat",
        outcome=Outcome.CLIENT_ABORT,
        completion_tokens=5,
    )


async def test_late_counts_go_with_the_next_commit(frames: Any) -> None:
    """A late count is committed in one transaction with what there is, alone if there is nothing, and once."""
    async with running(Rig(frames)) as rig:
        rig.finish(1)
        rig.journal.add_late(a_late_count("a"))
        assert await rig.journal.flush(5)
        rig.journal.add_late(a_late_count("b"))
        assert await rig.journal.flush(5)
        assert rig.journal.position == rig.journal.committed == 1
    assert rig.ledger.late == ["a", "b"]
    assert [len(ids) for ids, _ in rig.ledger.commits] == [1, 0]


async def test_late_counts_wait_too(frames: Any) -> None:
    """While the ledger fails they wait in order; above the bound the oldest go and are counted."""
    rig = Rig(frames, max_waiting=10)
    rig.ledger.faults = [LedgerFault.FULL] * 3
    async with running(rig):
        for number in range(13):
            rig.journal.add_late(a_late_count(str(number)))
        await rig.until(lambda: rig.ledger.late != [])
    assert rig.ledger.late == [str(number) for number in range(3, 13)]
    assert (rig.journal.lost_late, rig.journal.lost) == (3, 0)
