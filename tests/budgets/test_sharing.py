"""sharing and redis_link: what is counted and said when Redis does not do its part, and that nothing hangs on it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from inferwatch.board import H_INITIAL, Board
from inferwatch.settings.sharing import Redis
from inferwatch_collectors import metrics as m
from inferwatch_collectors.budgets.lending import Lending
from inferwatch_collectors.budgets.redis_link import ANSWER, CONNECTION, TIMEOUT
from inferwatch_collectors.budgets.sharing import Sharing, host_name
from inferwatch_collectors.metric_store import MetricStore

OpenBoard = Callable[..., Board]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _committed(_: float) -> bool:
    return True


async def _not_committed(_: float) -> bool:
    return False


async def _nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(4096):
            pass
    writer.close()


async def _another(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Something that speaks Redis, and knows none of our words."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(4096):
            writer.write(b"-ERR unknown command\r\n" * 4)
    writer.close()


class Collector:
    """As much of one as sharing needs."""

    def __init__(self, board: Board, settings: Redis, commit: Callable[[float], Awaitable[bool]] = _committed) -> None:
        self.board = board
        self.store = MetricStore()
        self.lending = Lending(settings, host_name(self.store), board, dict, 0)
        self.sharing = Sharing(settings, self.lending, self.store, commit)

    async def run(self) -> None:
        """Until Redis has answered, or will not at once."""
        async with asyncio.timeout(20):
            task = asyncio.create_task(self.sharing.run())
            _ = await self.sharing.settled.wait()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.sharing.refresh()

    def failures(self, reason: str) -> float:
        return self.store.counter(m.BUDGET_REDIS_FAILURES, (reason,)).value


@pytest.mark.parametrize(("talk", "reason"), [(_nobody, CONNECTION), (_silent, TIMEOUT), (_another, ANSWER)])
async def test_a_redis_that_is_none_is_counted_by_what_it_does(
    open_board: OpenBoard, talk: Talk, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log for an outage, without the address; what is not known is not shown."""
    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        it = Collector(open_board(), Redis(url=f"redis://127.0.0.1:{port}", timeout_s=0.2))
        with caplog.at_level(logging.WARNING):
            await it.run()
    assert it.failures(reason) >= 1
    assert it.store.counter(m.BUDGET_REDIS_OUTAGES).value == 1
    assert it.store.gauge(m.BUDGET_REDIS_UP).value == 0
    assert it.store.gauge(m.BUDGET_REDIS_SILENCE).value is None
    [line] = [each.getMessage() for each in caplog.records if "budgets" in each.getMessage()]
    assert line == f"budgets_redis_failed reason={reason} then=lease"


async def test_an_address_that_cannot_be_read_any_more_is_an_outage(open_board: OpenBoard, tmp_path: Path) -> None:
    """The file has gone since the start: it may come back with another password."""
    it = Collector(open_board(), Redis(url_file=str(tmp_path / "gone")))
    await it.run()
    assert it.store.counter(m.BUDGET_REDIS_OUTAGES).value == 1


async def test_nothing_is_said_under_a_name_that_is_not_written_down(open_board: OpenBoard) -> None:
    """A full disk at the very first start: another life would tell the same under another name."""
    it = Collector(open_board(), Redis(url="redis://127.0.0.1:1"), _not_committed)
    await it.run()
    assert it.failures(CONNECTION) == 0
    assert it.board.words[H_INITIAL] == it.lending.settings.initial_ppm  # it was never heard: `lease`


async def test_a_goodbye_waits_no_longer_than_it_is_told(open_board: OpenBoard) -> None:
    it = Collector(open_board(), Redis(url="redis://127.0.0.1:1"))
    await it.sharing.part(0.05)
    it.sharing.forget()
    assert it.store.gauge(m.BUDGET_REDIS_UP).value is None


def test_a_host_keeps_its_name_as_long_as_its_ledger() -> None:
    store = MetricStore()
    name = host_name(store)
    assert host_name(store) == name
    later = MetricStore()
    later.restore(store.take_dirty())
    assert host_name(later) == name
    assert host_name(MetricStore()) != name
