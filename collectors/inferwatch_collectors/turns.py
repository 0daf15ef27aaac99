"""Long work on the loop, in turns: whoever has much to do asks `Turn.over` between its steps.

By the clock and not by a count of steps. What a step costs depends on what is switched on (a vote on drift takes
several times what its record takes) and on who else wants the core. And who takes one step a turn where others take
a full one waits for them as often as it has steps: a scrape of 100 families beside a collector that has a backlog took
13 s so.
"""

import asyncio
import time
from typing import Final

# Others wait this long, and for one step. Each turn costs a look at the sockets, so not much shorter.
TURN_S: Final = 0.005


class Turn:
    """The time that one task may keep the loop."""

    __slots__ = ("_ends_s",)

    def __init__(self) -> None:
        self._ends_s = time.monotonic() + TURN_S

    async def over(self) -> None:
        """Let others run if the turn is over, and begin the next one."""
        if time.monotonic() >= self._ends_s:
            await asyncio.sleep(0)
            self._ends_s = time.monotonic() + TURN_S
