"""The ledger as the event loop sees it."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from inferwatch_collectors.ledger import sqlite_store
from inferwatch_collectors.ledger.base import LedgerInUseError
from inferwatch_collectors.ledger.sqlite import FILE_NAME, SqliteLedger


async def test_the_loop_is_never_blocked(tmp_path: Path, frames: Any, nothing_blocks: None) -> None:
    """Opening, committing, asking, deleting and closing all happen in the ledger's own thread."""
    ledger = await SqliteLedger.open(tmp_path)
    await ledger.commit([frames.record(1), frames.record(2)], [("a", b"", b"1")])
    known = frames.record(1).request_id
    assert await ledger.seen([known, "unknown"]) == {known}
    assert await ledger.load_metrics() == [("a", b"", b"1")]
    assert len(await ledger.recent(1)) == 1
    assert await ledger.retain(1_700_000_000_000_000_000) == 0
    assert ledger.durable
    await ledger.close()


async def test_calls_may_overlap(tmp_path: Path, frames: Any) -> None:
    """Commits asked for at the same time all take place, in order."""
    ledger = await SqliteLedger.open(tmp_path)
    await asyncio.gather(*(ledger.commit([frames.record(n)], [("a", b"", b"%d" % n)]) for n in range(1, 21)))
    assert [record.wall_ns % 100 for record in await ledger.recent(20)] == list(range(20, 0, -1))
    assert await ledger.load_metrics() == [("a", b"", b"20")]
    await ledger.close()


async def test_without_a_usable_folder_it_lives_in_memory(tmp_path: Path, frames: Any, caplog: Any) -> None:
    """A path that cannot be used gives a ledger that works, says that it is not durable, and is loud about it."""
    (tmp_path / "file").touch()
    ledger = await SqliteLedger.open(tmp_path / "file")
    await ledger.commit([frames.record(1)], [])
    assert not ledger.durable
    assert len(await ledger.recent(9)) == 1
    assert "ledger_not_durable" in caplog.text
    await ledger.close()


async def test_no_folder_means_memory(frames: Any, caplog: Any) -> None:
    """Asked for nothing durable, it is in memory without a complaint."""
    ledger = await SqliteLedger.open(None)
    assert not ledger.durable
    assert caplog.text == ""
    await ledger.close()


async def test_in_use_is_not_papered_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that another collector writes is an error, not a reason to count in memory."""
    monkeypatch.setattr(sqlite_store, "LOCK_WAIT_S", 0.0)
    first = await SqliteLedger.open(tmp_path)
    with pytest.raises(LedgerInUseError):
        await SqliteLedger.open(tmp_path)
    await first.close()


async def test_what_is_committed_is_there_for_the_next(tmp_path: Path, frames: Any) -> None:
    """A second life finds the records and the counters of the first."""
    ledger = await SqliteLedger.open(tmp_path)
    await ledger.commit([frames.record(1)], [("a", b"", b"1")])
    await ledger.close()
    ledger = await SqliteLedger.open(tmp_path)
    assert await ledger.recent(9) == [frames.record(1)]
    assert await ledger.load_metrics() == [("a", b"", b"1")]
    assert (tmp_path / FILE_NAME).exists()
    await ledger.close()


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        ("directory", "ledger.sqlite3: Is a directory"),
        ("newer", "ledger.sqlite3: schema 99 is from a newer version"),
        ("folder", "there is no state folder"),
        ("nothing", ""),
    ],
)
async def test_why_it_is_in_memory(tmp_path: Path, found: str, fault: str) -> None:
    """Who asks for a report is told what is in the way."""
    file = tmp_path / "ledger.sqlite3"
    if found == "directory":
        file.mkdir()
    elif found == "newer":
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA user_version = 99")
    ledger = await SqliteLedger.open(None if found == "folder" else tmp_path)
    assert fault in ledger.fault
    assert (ledger.fault == "") is ledger.durable
    await ledger.close()
