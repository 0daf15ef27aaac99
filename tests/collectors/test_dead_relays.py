"""Requests of relays that are gone: booked beside all else, and no faster than they are committed."""

import asyncio
from typing import Any

import pytest

from inferwatch.record import Outcome, RequestRecord
from inferwatch_collectors import dead_relays
from inferwatch_collectors.booking import GRACE_NS, Booking
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.ledger.base import LedgerError, LedgerFault
from inferwatch_collectors.ledger.journal import COMMIT_RECORDS, Journal
from inferwatch_collectors.ledger.sqlite import SqliteLedger
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.recorder import Recorder

STREAMS = 3 * COMMIT_RECORDS + 7


class Dead:
    """A relay that died with so many streams, before a real journal."""

    def __init__(self, frames: Any, ledger: SqliteLedger) -> None:
        store = MetricStore()
        self.journal = Journal(ledger, store)
        self.records: list[RequestRecord] = []
        self.most_waiting = 0
        self.booking = Booking(Recorder(store, CardinalityGuard()), self._sink)
        link = self.booking.connect(frames.hello(), frames.base_ns)
        opens = [frames.open(number) for number in range(1, STREAMS + 1)]
        list(self.booking.apply(link, frames.batch(opens=opens), set(), frames.base_ns))
        self.booking.lost(link, frames.base_ns)
        self.due_ns = frames.base_ns + GRACE_NS

    def _sink(self, record: RequestRecord) -> None:
        self.records.append(record)
        self.journal.add(record)
        self.most_waiting = max(self.most_waiting, self.journal.waiting)


async def test_they_wait_for_their_commits(frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow those are: what a scrape may show before it is durable is a commit's worth."""
    ledger = await SqliteLedger.open(None)
    commit = ledger.commit

    async def slow(*what: Any) -> None:
        await asyncio.sleep(0.05)
        await commit(*what)

    monkeypatch.setattr(ledger, "commit", slow)
    dead = Dead(frames, ledger)
    async with asyncio.TaskGroup() as group:
        group.create_task(dead.journal.run())
        await dead_relays.book(dead.booking, dead.journal, dead.due_ns)
        assert await dead.journal.flush(5)
        dead.journal.close()
    assert dead.most_waiting <= COMMIT_RECORDS
    assert len(dead.records) == dead.journal.committed == STREAMS
    assert {record.outcome for record in dead.records} == {Outcome.INTERRUPTED}
    await ledger.close()


async def test_a_ledger_that_hangs_is_waited_for_once(frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes nothing must not keep a collector from its end."""
    monkeypatch.setattr(dead_relays, "COMMIT_TIMEOUT_S", 0.05)
    ledger = await SqliteLedger.open(None)
    enough = asyncio.Event()

    async def hangs(*_: Any) -> None:
        await enough.wait()

    monkeypatch.setattr(ledger, "commit", hangs)
    dead = Dead(frames, ledger)
    running = asyncio.get_running_loop().create_task(dead.journal.run())
    async with asyncio.timeout(10):
        await dead_relays.book(dead.booking, dead.journal, dead.due_ns)
    assert len(dead.records) == STREAMS
    enough.set()
    dead.journal.close()
    await running
    await ledger.close()


async def test_a_ledger_that_fails_is_not_waited_for(frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk gets no better by waiting; the journal keeps them."""
    ledger = await SqliteLedger.open(None)

    async def full(*_: Any) -> None:
        raise LedgerError(LedgerFault.FULL, "full")

    dead = Dead(frames, ledger)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "commit", full)
        async with asyncio.timeout(10):
            running = asyncio.get_running_loop().create_task(dead.journal.run())
            await dead_relays.book(dead.booking, dead.journal, dead.due_ns)
    assert len(dead.records) == STREAMS
    assert dead.journal.failing
    dead.journal.close()
    await running
    assert dead.journal.committed == STREAMS
    await ledger.close()
