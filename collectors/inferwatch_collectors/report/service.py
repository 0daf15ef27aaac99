"""`/usage`: the report over HTTP. The file is read in a thread of its own, one report at a time.

Reports are read from disk and made with Python's lock held for a few hundred milliseconds at worst; what waits longer
than a few others do is refused rather than queued.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from inferwatch_collectors.report.building import PriceBasis, build
from inferwatch_collectors.report.query import Query, QueryError
from inferwatch_collectors.report.reading import ReadError, reading, usage
from inferwatch_collectors.report.rendering import CONTENT_TYPES, FORMATS

# Under way and waiting. Somebody's dashboard that asks every second must not pile up.
MAX_REPORTS: Final = 4


class Answer(NamedTuple):
    """What goes back over HTTP."""

    status: int
    text: str
    content_type: str = "text/plain"


class UsageService:
    """Answers `/usage` from the ledger's file."""

    def __init__(self, ledger: Path | None, basis: Callable[[], PriceBasis], fault: str = "") -> None:
        """`ledger` is None if there is no file, for the reason `fault`: then there is nothing to report from."""
        self._ledger = ledger
        self._fault = fault
        self._basis = basis
        self._under_way = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="report")

    async def answer(self, parameters: Mapping[str, str], now_s: float) -> Answer:
        """Return the report. `parameters` are those of `Query.of`, and `format`; JSON unless said otherwise."""
        asked = dict(parameters)
        name = asked.pop("format", "json")
        if name not in FORMATS:
            return Answer(400, f"format: expected one of {', '.join(FORMATS)}\n")
        try:
            query = Query.of(asked, now_s)
        except QueryError as error:
            return Answer(400, f"{error}\n")
        if self._ledger is None:
            return Answer(503, f"the ledger is in memory only: {self._fault}\n")
        if self._under_way >= MAX_REPORTS:
            return Answer(503, f"{MAX_REPORTS} reports are under way\n")
        self._under_way += 1
        try:
            text = await asyncio.get_running_loop().run_in_executor(
                self._thread, _made, self._ledger, query, self._basis(), name
            )
        except ReadError as error:
            return Answer(503, f"{error}\n")
        finally:
            self._under_way -= 1
        return Answer(200, text, CONTENT_TYPES[name])

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _made(ledger: Path, query: Query, basis: PriceBasis, name: str) -> str:
    try:
        with reading(ledger) as connection:
            found = usage(connection, query)
    except sqlite3.Error as error:
        raise ReadError(f"{ledger}: {error}") from None
    return FORMATS[name](build(query, found, basis))
