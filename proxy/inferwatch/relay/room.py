"""Room in the budgets for a request: taken, refused, or waited for.

What a request held that has just ended is settled a moment later. A client that asks one by one would be refused for
its own last request, so where only what is held stands in the way, a request waits a little before it is refused.

State: the gate, and how many wait.
"""

import asyncio
from typing import Final

from inferwatch.relay.admission import BudgetRefusal, Gate
from inferwatch.relay.heads import RequestHead
from inferwatch.relay.observer import Observer
from inferwatch.relay.reckoning import is_asked_for
from inferwatch.relay.usage_request import Facts

# It is settled within a tenth of a second, and a host that needs more of a shared budget is lent it in about that time.
# Three times that, in steps.
LOOK_S: Final = 0.05
LOOKS: Final = 6

# Each looks at the board under its lock, some 10 us; above this they are refused at once.
MAX_WAITING: Final = 256


class Room:
    """Of one relay process."""

    def __init__(self) -> None:
        self.gate: Gate | None = None  # no budgets
        self.waiting = 0

    def take(
        self, observer: Observer, method: bytes, head: RequestHead, facts: Facts, body_bytes: int
    ) -> BudgetRefusal | None:
        """Take room for a request, or return why there is none; one that is `soon` is to be waited out."""
        if self.gate is None or not is_asked_for(method, head.path):
            return None
        return self._asked(self.gate, observer, facts, body_bytes, last=self.waiting >= MAX_WAITING)

    async def wait(self, observer: Observer, facts: Facts, body_bytes: int) -> BudgetRefusal | None:
        """Ask until what has just ended is settled; then it is refused."""
        refusal = None
        self.waiting += 1
        try:
            for look in range(LOOKS):
                await asyncio.sleep(LOOK_S)
                if self.gate is None:  # a reload took the last budget away
                    return None
                refusal = self._asked(self.gate, observer, facts, body_bytes, last=look == LOOKS - 1)
                if refusal is None or not refusal.soon:
                    break
        finally:
            self.waiting -= 1
        return refusal

    def _asked(
        self, gate: Gate, observer: Observer, facts: Facts, body_bytes: int, *, last: bool
    ) -> BudgetRefusal | None:
        refusal = observer.admit(gate, facts, body_bytes, last=last)
        return refusal._replace(soon=False) if refusal is not None and last else refusal
