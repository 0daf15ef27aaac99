"""What relays left open that are gone is booked beside all else, and no faster than it is committed.

It is thousands of requests if there were as many streams. The tick does not wait for them: what is done between two
ticks has bounds. And they wait for their commits: the ledger's thread hardly gets the interpreter beside a task that
never pauses, and what is booked and not committed, a scrape shows before it is durable, and a kill takes it along.
"""

import asyncio
import time
from typing import Final

from inferwatch_collectors.booking import Booking
from inferwatch_collectors.ledger.journal import COMMIT_RECORDS, Journal
from inferwatch_collectors.tap_server import is_alive
from inferwatch_collectors.turns import Turn

LOOK_S: Final = 0.5

# A commit of COMMIT_RECORDS takes some 10 ms. After one that takes this long, the rest is booked all the same: what is
# done at the end of a collector comes after it.
COMMIT_TIMEOUT_S: Final = 2.0


async def watch(booking: Booking, journal: Journal) -> None:
    """Book what is due, for ever."""
    while True:
        await asyncio.sleep(LOOK_S)
        await book(booking, journal, time.monotonic_ns())


async def book(booking: Booking, journal: Journal, now_ns: int) -> None:
    """Book what is due at `now_ns`, and let others run meanwhile."""
    turn, patient = Turn(), True
    for _ in booking.expire(now_ns, is_alive):
        if patient and journal.waiting >= COMMIT_RECORDS:
            patient = await journal.flush(COMMIT_TIMEOUT_S)
        await turn.over()
