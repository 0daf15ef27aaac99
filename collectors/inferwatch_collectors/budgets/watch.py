"""Budgets in the running collector: opens the board, and ticks while there are rules.

A board that cannot be opened is told in the log; then everything is counted and nothing enforced.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from inferwatch.board import Board, BoardError
from inferwatch.config import Config
from inferwatch.price_book import PriceBook
from inferwatch.settings.budgets import Budgets
from inferwatch.tasks import TaskSet
from inferwatch_collectors.booking import Link
from inferwatch_collectors.budgets.charges import Tariff, nanodollars_per_gpu_hour
from inferwatch_collectors.budgets.meter import TICK_S, BudgetMeter
from inferwatch_collectors.metric_store import MetricStore

_log: Final = logging.getLogger(__name__)


class BudgetWatch:
    """Holds the meter and its task."""

    def __init__(
        self,
        config: Config,
        store: MetricStore,
        board: Path | None,
        links: Callable[[], Iterable[Link]],
        cut: Callable[[Link, tuple[int, ...]], None],
    ) -> None:
        """`links` are the connected relays; `cut` tells one of them which of its requests must end."""
        self._links = links
        self._task: asyncio.Task[None] | None = None
        self._is_asked = bool(config.budgets.rules)
        tariff = Tariff(PriceBook(config.prices.rules), nanodollars_per_gpu_hour(config.cost, config.energy))
        self.meter = BudgetMeter(store, tariff, config.budgets, _open(board, config.budgets), cut)

    def restore(self) -> None:
        """Go on where an earlier life stopped. Once, after the store was restored, before any request."""
        self.meter.restore(time.monotonic_ns(), time.time())

    def start(self, tasks: TaskSet) -> None:
        """Tick while there are budgets."""
        if self._is_asked and self._task is None:
            self._task = tasks.start(self._tick(), "budgets")

    def reconfigure(self, config: Config, tasks: TaskSet) -> None:
        """Take up a new configuration."""
        self._is_asked = bool(config.budgets.rules)
        self.meter.use(config.budgets, PriceBook(config.prices.rules), time.monotonic_ns())
        if not self._is_asked and self._task is not None:
            self._task.cancel()
            self._task = None
        self.start(tasks)

    def close(self) -> None:
        """Let go of the board."""
        self.meter.close()

    async def _tick(self) -> None:
        while True:
            self.meter.tick(time.monotonic_ns(), time.time(), self._links())
            await asyncio.sleep(TICK_S)


def _open(path: Path | None, budgets: Budgets) -> Board | None:
    if path is None:
        return None
    try:
        return Board(path, budgets.max_accounts, lock_wait_s=budgets.max_lock_wait_s)
    except BoardError as error:
        _log.error("budgets_not_enforced reason=%s", error)
        return None
