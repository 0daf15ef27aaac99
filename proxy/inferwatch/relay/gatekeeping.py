"""The gate of one relay process, kept in step with the configuration: none without budgets, else one on the board.

The board is opened when there are budgets for the first time. If it cannot be, traffic goes on unchecked and the log
says so: no fault of ours refuses anybody.
"""

import logging
from pathlib import Path
from typing import Final

from inferwatch.board import Board, BoardError
from inferwatch.config import Config
from inferwatch.price_book import PriceBook
from inferwatch.relay.admission import Budgeting

log = logging.getLogger(__name__)

# What streams have spent reaches the board within 100 ms only if copies leave us this often.
FLUSH_S: Final = 0.05


class Gatekeeper:
    """Holds the board."""

    def __init__(self, board: Path | None) -> None:
        self._path = board
        self._budgeting: Budgeting | None = None

    @property
    def unsure(self) -> int:
        """Requests that passed because the lock was not to be had."""
        return self._budgeting.unsure if self._budgeting is not None else 0

    def use(self, config: Config) -> Budgeting | None:
        """Return the gate for a configuration; None: nobody is asked."""
        budgets, prices = config.budgets, PriceBook(config.prices.rules)
        if not budgets.rules or self._path is None:
            return None
        if self._budgeting is not None:
            self._budgeting.use(budgets, prices)
            return self._budgeting
        try:
            board = Board(self._path, budgets.max_accounts, lock_wait_s=budgets.max_lock_wait_s)
        except BoardError as error:
            log.error("budgets_not_enforced reason=%s", error)
            return None
        self._budgeting = Budgeting(budgets, prices, board)
        return self._budgeting
