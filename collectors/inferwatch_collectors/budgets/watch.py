"""Budgets in the running collector: opens the board, ticks while there are rules, reads the past of those that begin.

A board that cannot be opened is told in the log; then everything is counted and nothing enforced. The past is read in a
thread of its own, from the ledger's file; without a file there is none.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from inferwatch.board import Board, BoardError
from inferwatch.budget_rules import Rule
from inferwatch.config import Config
from inferwatch.price_book import PriceBook
from inferwatch.settings.budgets import Budgets
from inferwatch.tasks import TaskSet
from inferwatch_collectors.budgets import history
from inferwatch_collectors.budgets.charges import Tariff, nanodollars_per_gpu_hour
from inferwatch_collectors.budgets.lending import Lending
from inferwatch_collectors.budgets.meter import TICK_S, BudgetMeter
from inferwatch_collectors.budgets.sharing import Sharing, host_name
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.open_requests import Link
from inferwatch_collectors.report.reading import ReadError
from inferwatch_collectors.turns import Turn

_log: Final = logging.getLogger(__name__)

# A Redis that answers has done so long before; for one that does not, the start does not wait.
READY_S: Final = 1.0

# A commit that is due anyway; longer, and a disk is failing.
FLUSH_WITHIN_S: Final = 2.0

# A ledger that cannot be read, or whose last commit is too old: a full disk, or a backup that holds it.
RETRY_S: Final = 5.0

# What is not told by then is told after the next start.
PART_S: Final = 1.0


class BudgetWatch:
    """Holds the meter and its tasks."""

    def __init__(
        self,
        config: Config,
        store: MetricStore,
        board: Path | None,
        links: Callable[[], Iterable[Link]],
        cut: Callable[[Link, tuple[int, ...]], None],
        commit: Callable[[float], Awaitable[bool]],
        ledger: Path | None,
    ) -> None:
        """`links` are the connected relays; `cut` tells one of them which of its requests must end.

        `commit` waits until the ledger has everything up to now, or so many seconds; returns whether it has. `ledger`
        is its file, None if there is none.
        """
        self._links = links
        self._commit = commit
        self._ledger = ledger
        self._store = store
        self._sharing: Sharing | None = None
        self._talk: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_asked = bool(config.budgets.rules)
        tariff = Tariff(PriceBook(config.prices.rules), nanodollars_per_gpu_hour(config.cost, config.energy))
        self._board = _open(board, config.budgets)
        self._settings = config.budgets
        self.meter = BudgetMeter(store, tariff, config.budgets, self._board, cut)

    def restore(self) -> None:
        """Go on where an earlier life stopped. Once, after the store was restored, before any request."""
        self.meter.restore(time.monotonic_ns(), time.time())

    def start(self, tasks: TaskSet) -> None:
        """Tick while there are budgets."""
        if self._is_asked and self._task is None:
            self._task = tasks.start(self._tick(), "budgets")
        if self._is_asked and self._settings.redis.is_used and self._sharing is None:
            self._share(tasks)
        if self.meter.beginnings and (self._reading is None or self._reading.done()):
            self._reading = tasks.start(self._read(), "budget_history")

    async def ready(self) -> None:
        """Wait until Redis has lent something, or will not at once; then requests find what they may spend."""
        if self._sharing is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READY_S):
                    _ = await self._sharing.settled.wait()

    def reconfigure(self, config: Config, tasks: TaskSet) -> None:
        """Take up a new configuration."""
        self._is_asked = bool(config.budgets.rules)
        if config.budgets.redis != self._settings.redis or not self._is_asked:
            self._unshare()
        self._settings = config.budgets
        self.meter.use(config.budgets, PriceBook(config.prices.rules), time.monotonic_ns())
        if not self._is_asked and self._task is not None:
            self._task.cancel()
            self._task = None
        self.start(tasks)

    async def part(self) -> None:
        """Say goodbye to the other hosts. When all that was spent is known."""
        if self._sharing is not None:
            await self._sharing.part(PART_S)

    def refresh(self) -> None:
        """Bring the gauges up to date: right before each exposition."""
        self.meter.refresh()
        if self._sharing is not None:
            self._sharing.refresh()

    def close(self) -> None:
        """Let go of the board."""
        self._unshare()
        self.meter.close()

    def _share(self, tasks: TaskSet) -> None:
        if self._board is None:
            return
        redis = self._settings.redis
        lending = Lending(redis, host_name(self._store), self._board, lambda: self.meter.accounts, time.monotonic_ns())
        self.meter.share_with(lending)
        self._sharing = Sharing(redis, lending, self._store, self._commit)
        self._talk = tasks.start(self._sharing.run(), "shared_budgets")

    def _unshare(self) -> None:
        if self._talk is not None:
            self._talk.cancel()
        if self._sharing is not None:
            self._sharing.forget()
            self.meter.share_with(None)
        self._talk = self._sharing = None

    async def _tick(self) -> None:
        while True:
            self.meter.tick(time.monotonic_ns(), time.time(), self._links())
            await asyncio.sleep(TICK_S)

    async def _read(self) -> None:
        """Read the past of all rules that begin."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="budget_history")
        stop = threading.Event()
        try:
            while self.meter.beginnings:
                await self._commit(FLUSH_WITHIN_S)
                for rule, since in self.meter.beginnings.waiting():
                    await self._begin(rule, since, thread, stop)
                if self.meter.beginnings:
                    await asyncio.sleep(RETRY_S)
        finally:
            stop.set()
            thread.shutdown(wait=False)

    async def _begin(self, rule: Rule, since: int, thread: ThreadPoolExecutor, stop: threading.Event) -> None:
        if self._ledger is None:
            self.meter.beginnings.known(rule)
            return
        loop, name = asyncio.get_running_loop(), rule.name
        try:
            past = await loop.run_in_executor(thread, history.read, self._ledger, rule, time.time(), stop)
        except ReadError as error:
            _log.warning("budget_history_unread budget=%s reason=%s", name, error)
            return
        turn = Turn()
        for _ in self.meter.begin(name, since, past):
            await turn.over()
        if not self.meter.beginnings.waits(name):
            _log.info("budget_history_read budget=%s accounts=%d", name, len(past.accounts))


def _open(path: Path | None, budgets: Budgets) -> Board | None:
    if path is None:
        return None
    try:
        return Board(path, budgets.max_accounts, lock_wait_s=budgets.max_lock_wait_s)
    except BoardError as error:
        _log.error("budgets_not_enforced reason=%s", error)
        return None
