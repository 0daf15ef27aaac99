"""Rows that are too old go, a step at a time: commits come first."""

import asyncio
import logging
import time
from typing import Final

from inferwatch_collectors.ledger.base import Ledger, LedgerError
from inferwatch_collectors.ledger.sqlite_store import RETENTION_STEP_ROWS

_log: Final = logging.getLogger(__name__)

INTERVAL_S: Final = 60.0
# Between two steps of one retention.
PAUSE_S: Final = 0.05


async def keep(ledger: Ledger) -> None:
    """Look for them for ever."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        try:
            while await ledger.retain(time.time_ns()) >= RETENTION_STEP_ROWS:
                await asyncio.sleep(PAUSE_S)
        except LedgerError as error:
            _log.warning("retention_failed reason=%s", error)
