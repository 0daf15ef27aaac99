"""What relays wrote to disk while there was no collector."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inferwatch import tap
from inferwatch.record import RequestRecord
from inferwatch_collectors import spool as spool_module
from inferwatch_collectors.booking import Booking
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.ledger.base import LedgerError, LedgerFault
from inferwatch_collectors.ledger.journal import Journal
from inferwatch_collectors.ledger.sqlite import SqliteLedger
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.recorder import Recorder
from inferwatch_collectors.spool import DEAD_AFTER_S, SpoolReader, boot_of


class Rig:
    """A reader on a folder, with a ledger in memory."""

    def __init__(self, folder: Path, ledger: SqliteLedger) -> None:
        self.folder = folder
        self.ledger = ledger
        store = MetricStore()
        self.journal = Journal(ledger, store)
        self.records: list[RequestRecord] = []
        self.booking = Booking(Recorder(store, CardinalityGuard()), self._sink)
        self.connected: set[str] = set()
        self.reader = SpoolReader(folder, self.booking, self.journal, connected_boots=lambda: self.connected)

    def _sink(self, record: RequestRecord) -> None:
        self.records.append(record)
        self.journal.add(record)

    async def put(self, name: str, data: bytes, age_s: float = 0.0) -> None:
        def write() -> None:
            self.folder.mkdir(exist_ok=True)
            path = self.folder / name
            path.write_bytes(data)
            os.utime(path, (time.time() - age_s,) * 2)

        await asyncio.to_thread(write)

    async def names(self) -> list[str]:
        return await asyncio.to_thread(lambda: sorted(path.name for path in self.folder.iterdir()))

    def booked(self) -> list[int]:
        return sorted(int(record.request_id[4:], 16) for record in self.records)


@pytest.fixture
async def rig(tmp_path: Path, nothing_blocks: None) -> AsyncIterator[Rig]:
    ledger = await SqliteLedger.open(None)
    rig = Rig(tmp_path / "spool", ledger)
    async with asyncio.TaskGroup() as group:
        group.create_task(rig.journal.run())
        yield rig
        rig.journal.close()
    await ledger.close()


@pytest.fixture
def long_running(rig: Rig) -> None:
    """The collector has been up for longer than a living relay needs to connect."""
    rig.reader._started_s -= 2 * DEAD_AFTER_S


async def test_a_file_that_was_handed_over_is_booked_and_deleted(rig: Rig, frames: Any) -> None:
    """All its requests are in the ledger before the file goes."""
    await rig.put("b007-0.ready", tap.encode(frames.told_again(1, 2)) + tap.encode(frames.told_again(3)))
    await rig.reader.scan()
    assert rig.booked() == [1, 2, 3]
    assert len(await rig.ledger.recent(9)) == 3
    assert await rig.names() == []
    assert rig.reader.files == 1


async def test_no_folder_no_files(rig: Rig) -> None:
    """A folder that does not exist yet is an empty one."""
    await rig.reader.scan()
    assert rig.records == []


async def test_what_is_booked_already_is_not_booked_again(rig: Rig, frames: Any) -> None:
    """Ids in the ledger are left out; the file goes all the same."""
    await rig.ledger.commit([frames.record(1)], [])
    await rig.put("b007-0.ready", tap.encode(frames.told_again(1, 2)))
    await rig.reader.scan()
    assert rig.booked() == [2]
    assert await rig.names() == []


async def test_opens_and_closes_in_different_messages(rig: Rig, frames: Any) -> None:
    """A request may be spread over messages of one file."""
    opens, closes = frames.batch(opens=[frames.again(1)]), frames.batch(closes=[frames.close(1)])
    await rig.put("b007-0.ready", tap.encode(opens) + tap.encode(closes))
    await rig.reader.scan()
    assert rig.booked() == [1]


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 100])
async def test_a_torn_tail(rig: Rig, frames: Any, cut: int) -> None:
    """What is whole before the tear is booked, the tear is counted, and the file goes."""
    whole, torn = tap.encode(frames.told_again(1)), tap.encode(frames.told_again(2))
    await rig.put("b007-0.ready", whole + torn[:cut])
    await rig.reader.scan()
    assert rig.booked() == [1]
    assert rig.reader.torn == 1
    assert await rig.names() == []


@pytest.mark.parametrize(
    "nonsense", [b"\x00\x00\x00\x03abc", b"\xff\xff\xff\xff" + b"x" * 50, tap.encode(tap.Bye()), tap.encode(tap.Ack(1))]
)
async def test_nonsense_is_put_aside(rig: Rig, frames: Any, nonsense: bytes) -> None:
    """What comes before it is booked; the file is kept for people and not read again."""
    await rig.put("b007-0.ready", tap.encode(frames.told_again(1)) + nonsense)
    await rig.reader.scan()
    await rig.reader.scan()
    assert rig.booked() == [1]
    assert rig.reader.bad == 1
    assert await rig.names() == ["b007-0.bad"]


async def test_an_empty_file(rig: Rig) -> None:
    """It goes without a word."""
    await rig.put("b007-0.ready", b"")
    await rig.reader.scan()
    assert (rig.reader.torn, rig.reader.bad, await rig.names()) == (0, 0, [])


@pytest.mark.usefixtures("long_running")
async def test_the_file_of_a_dead_relay(rig: Rig, frames: Any) -> None:
    """A file that nobody has touched for long, of a relay that is not connected, is taken."""
    await rig.put("b007-0.spool", tap.encode(frames.told_again(1)), age_s=DEAD_AFTER_S + 5)
    await rig.reader.scan()
    assert rig.booked() == [1]
    assert await rig.names() == []


@pytest.mark.usefixtures("long_running")
@pytest.mark.parametrize(("connected", "age_s"), [({"b007"}, 2 * DEAD_AFTER_S), (set(), 1.0)])
async def test_the_file_of_a_living_relay(rig: Rig, frames: Any, connected: set[str], age_s: float) -> None:
    """A file whose relay is connected, or may be about to, is left alone."""
    rig.connected = connected
    await rig.put("b007-0.spool", tap.encode(frames.told_again(1)), age_s=age_s)
    await rig.reader.scan()
    assert (rig.booked(), await rig.names()) == ([], ["b007-0.spool"])


async def test_a_young_collector_does_not_know_who_lives(rig: Rig, frames: Any) -> None:
    """Shortly after the start, relays may still be about to connect."""
    await rig.put("b007-0.spool", tap.encode(frames.told_again(1)), age_s=2 * DEAD_AFTER_S)
    await rig.reader.scan()
    assert rig.booked() == []


async def test_a_file_stays_until_it_is_committed(rig: Rig, frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the ledger fails the file is kept; later it is taken once, and its requests are booked once."""
    failing = True
    commit = rig.ledger.commit

    async def sometimes(*arguments: Any) -> None:
        if failing:
            raise LedgerError(LedgerFault.FULL, "told to")
        await commit(*arguments)

    monkeypatch.setattr(rig.ledger, "commit", sometimes)
    await rig.put("b007-0.ready", tap.encode(frames.told_again(1)))
    await rig.reader.scan()
    await rig.reader.scan()
    assert await rig.names() == ["b007-0.ready"]
    failing = False
    async with asyncio.timeout(20):
        while rig.journal.failing:
            await asyncio.sleep(0.01)
    await rig.reader.scan()
    assert rig.booked() == [1]
    assert await rig.names() == []
    assert len(await rig.ledger.recent(9)) == 1


async def test_a_file_that_grew_meanwhile_stays(rig: Rig, frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If its relay turns out to be alive and writes on, the rest is booked the next time."""
    await rig.put("b007-0.ready", tap.encode(frames.told_again(1)))
    flush = rig.journal.flush

    async def append_then_flush(timeout_s: float) -> bool:
        def append() -> None:
            with (rig.folder / "b007-0.ready").open("ab") as file:
                file.write(tap.encode(frames.told_again(2)))

        if rig.booked() == [1]:
            await asyncio.to_thread(append)
        return await flush(timeout_s)

    monkeypatch.setattr(rig.journal, "flush", append_then_flush)
    await rig.reader.scan()
    assert (rig.booked(), await rig.names()) == ([1], ["b007-0.ready"])
    await rig.reader.scan()
    assert (rig.booked(), await rig.names()) == ([1, 2], [])


async def test_a_large_file_is_committed_on_the_way(rig: Rig, frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the file, only so many of its requests wait for a commit at a time."""
    monkeypatch.setattr(spool_module, "MAX_WAITING", 100)
    most = 0
    add = rig.journal.add

    def watch(record: RequestRecord) -> None:
        nonlocal most
        add(record)
        most = max(most, rig.journal.waiting)

    monkeypatch.setattr(rig.journal, "add", watch)
    data = b"".join(tap.encode(frames.told_again(*range(start, start + 20))) for start in range(0, 2000, 20))
    await rig.put("b007-0.ready", data)
    await rig.reader.scan()
    assert rig.booked() == list(range(2000))
    assert most <= 120


@pytest.mark.parametrize("name", ["b007-0.spool", "b007-12.ready", "b007.spool"])
def test_boot_of(name: str) -> None:
    """The name of a file begins with the boot of its relay."""
    assert boot_of(Path("/somewhere") / name) == "b007"
