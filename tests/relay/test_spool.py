"""spool: a file that takes finished requests while nobody else does."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE_S

from inferwatch.relay import spool as spool_module
from inferwatch.relay.spool import Copy, SpoolWriter


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture(name="spool")
async def _spool(folder: Path) -> AsyncIterator[SpoolWriter]:
    writer = SpoolWriter(folder, "boot", 1000)
    yield writer
    with contextlib.suppress(RuntimeError):  # closed by the test
        await writer.close()


def put(spool: SpoolWriter, message: bytes, requests: int) -> bool:
    return spool.put(lambda: message, len(message), requests)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*"))} if folder.exists() else {}


async def test_unused_spool_leaves_nothing(spool: SpoolWriter, folder: Path) -> None:
    """No file, no folder."""
    spool.hand_over()
    await spool.close()
    assert files(folder) == {}


async def test_messages_are_appended_in_order_and_handed_over(spool: SpoolWriter, folder: Path) -> None:
    """Only a file that is complete has the name the collector looks for."""
    assert all(put(spool, b"%d," % number, 1) for number in range(5))
    await spool.close()
    assert files(folder) == {"boot-0.ready": b"0,1,2,3,4,"}
    assert spool.lost == 0


async def test_after_a_hand_over_another_file_begins(spool: SpoolWriter, folder: Path) -> None:
    """The collector may delete what it has taken while we write the next."""
    put(spool, b"one", 1)
    spool.hand_over()
    put(spool, b"two", 1)
    spool.hand_over()
    spool.hand_over()
    await spool.close()
    assert files(folder) == {"boot-0.ready": b"one", "boot-1.ready": b"two"}


async def test_full_file_refuses(spool: SpoolWriter, folder: Path) -> None:
    """Whoever put it counts the loss."""
    assert put(spool, b"x" * 999, 1)
    assert not put(spool, b"xx", 7)
    assert put(spool, b"x", 1)
    await spool.close()
    assert len(files(folder)["boot-0.ready"]) == 1000
    assert spool.lost == 0


async def settle(spool: SpoolWriter) -> None:
    """Wait until the thread has done what was queued."""
    await asyncio.wrap_future(spool._thread.submit(lambda: None))


async def test_full_file_takes_again_after_the_hand_over(spool: SpoolWriter) -> None:
    """The limit is per file."""
    put(spool, b"x" * 1000, 1)
    spool.hand_over()
    await settle(spool)
    assert put(spool, b"x" * 1000, 1)


async def test_a_message_counts_by_what_it_came_to(spool: SpoolWriter, folder: Path) -> None:
    """The size it may have is an estimate; what is less leaves room, and more than the limit is not written."""
    assert spool.put(lambda: b"x" * 100, 900, 1)
    assert not put(spool, b"y" * 101, 1)
    await settle(spool)
    assert put(spool, b"y" * 101, 1)
    assert spool.put(lambda: b"z" * 800, 10, 3), "201 + 10 bytes, as far as is known"
    await settle(spool)
    assert spool.lost == 3
    assert not spool.failing
    assert put(spool, b"y" * 799, 1)
    await spool.close()
    assert len(files(folder)["boot-0.ready"]) == 1000


async def test_what_comes_while_a_file_is_handed_over_counts_for_the_next(spool: SpoolWriter) -> None:
    """Whatever the thread has done of it by then."""
    put(spool, b"x" * 10, 1)
    spool.hand_over()
    put(spool, b"x" * 900, 1)
    await settle(spool)
    assert not put(spool, b"x" * 101, 1)


async def test_the_queue_is_bounded_however_often_it_is_handed_over(spool: SpoolWriter) -> None:
    """A disk that hangs must not fill the memory."""
    hang = threading.Event()

    def make() -> bytes:
        hang.wait(PATIENCE_S)
        return b"x"

    for _ in range(5):
        spool.put(make, 400, 1)
        spool.hand_over()
    assert not put(spool, b"x" * 400, 1)
    hang.set()
    await settle(spool)
    assert put(spool, b"x" * 400, 1)


async def test_the_queue_is_memory_and_has_less_room_than_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may be a gigabyte; what waits for a disk that hangs may not."""
    monkeypatch.setattr(spool_module, "MAX_QUEUED_BYTES", 500)
    spool = SpoolWriter(tmp_path, "boot", 1_000_000)
    hang = threading.Event()

    def make() -> bytes:
        hang.wait(PATIENCE_S)
        return b"x" * 400

    assert spool.put(make, 400, 1)
    assert not put(spool, b"x" * 400, 1)
    hang.set()
    await settle(spool)
    assert put(spool, b"x" * 400, 1)
    await spool.close()
    assert len(files(tmp_path)["boot-0.ready"]) == 800


async def test_of_a_copy_only_what_left_the_memory_is_lost(spool: SpoolWriter) -> None:
    """The rest is told when there is somebody to tell."""

    def make() -> bytes:
        raise ValueError

    copy = Copy()
    assert spool.put(make, 10, 4, copy)
    copy.only_here = 1
    await settle(spool)
    assert copy.failed
    assert spool.lost == 1


async def test_folder_that_cannot_be_made_loses_and_counts(tmp_path: Path) -> None:
    """A disk that refuses must not raise into anybody's request."""
    (tmp_path / "file").write_bytes(b"")
    spool = SpoolWriter(tmp_path / "file" / "spool", "boot", 1000)
    assert put(spool, b"x", 3)
    await settle(spool)
    assert spool.lost == 3
    assert not put(spool, b"y", 1), "refused as long as it fails"
    await spool.close()


async def test_disk_that_recovers_is_used_again(tmp_path: Path) -> None:
    """After the next hand-over."""
    blocker = tmp_path / "spool"
    blocker.write_bytes(b"in the way")
    spool = SpoolWriter(blocker, "boot", 10)
    put(spool, b"12345678", 1)
    await settle(spool)
    blocker.unlink()
    spool.hand_over()
    await settle(spool)
    assert put(spool, b"12345678", 1)
    await spool.close()
    assert list(files(blocker).values()) == [b"12345678"]
    assert spool.lost == 1


async def test_a_message_that_cannot_be_made_is_lost_and_counted(
    spool: SpoolWriter, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours, in the thread: those behind it are written."""

    def make() -> bytes:
        raise ValueError("with the text of somebody")

    assert spool.put(make, 10, 4)
    put(spool, b"next", 1)
    await spool.close()
    assert files(folder) == {"boot-0.ready": b"next"}
    assert spool.lost == 4
    assert [record.getMessage() for record in caplog.records] == ["spool_fault type=ValueError"]


class ShortFile:
    """A file on a disk that fills up in the middle of a write."""

    def __init__(self, file: Any, room: int) -> None:
        self._file = file
        self._room = room

    def write(self, data: bytes) -> int:
        part = data[: self._room]
        if not part and data:
            raise OSError(28, "No space left on device")
        self._room -= len(part)
        written: int = self._file.write(part)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


async def test_short_write_leaves_no_half_message(spool: SpoolWriter, folder: Path) -> None:
    """A half message would make everything behind it unreadable."""
    put(spool, b"first|", 1)
    await settle(spool)
    spool._file = ShortFile(spool._file, 4)  # type: ignore[assignment]
    put(spool, b"second|", 5)
    await settle(spool)
    await spool.close()
    assert files(folder) == {"boot-0.ready": b"first|"}
    assert spool.lost == 5


async def test_short_writes_in_a_row_leave_no_hole(spool: SpoolWriter, folder: Path) -> None:
    """What was queued meets the same full disk, of which a little is free again each time."""
    put(spool, b"first|", 1)
    await settle(spool)
    file: Any = spool._file

    def write_less() -> bytes:
        spool._file = ShortFile(file, 2)  # type: ignore[assignment]
        return b"third|"

    spool._file = ShortFile(file, 4)  # type: ignore[assignment]
    put(spool, b"second|", 1)
    spool.put(write_less, 6, 1)
    await settle(spool)
    await spool.close()
    assert files(folder) == {"boot-0.ready": b"first|"}
    assert spool.lost == 2
