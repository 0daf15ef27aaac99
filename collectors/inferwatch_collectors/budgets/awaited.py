"""Requests between their end and their measurement by the attribution, with the accounts that will be charged. Pure."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from inferwatch_collectors.budgets.account import Account

# Ten minutes of a busy host.
MAX_AWAITED: Final = 100_000


class Awaited(NamedTuple):
    """An ended request that will be measured."""

    accounts: Sequence[Account]
    arrival_s: float
    prompt: int
    completion: int


class Awaiting:
    """All of them, by id."""

    def __init__(self) -> None:
        self._ended: dict[str, Awaited] = {}

    def note(self, request_id: str, awaited: Awaited) -> None:
        """It ended; above MAX_AWAITED its share is charged to whom its names belong to, and nothing is learnt of it."""
        if len(self._ended) < MAX_AWAITED:
            self._ended[request_id] = awaited

    def take(self, request_id: str) -> Awaited | None:
        """Return what is known of a request, and forget it."""
        return self._ended.pop(request_id, None)

    def forget_before(self, arrival_s: float) -> None:
        """Let go of requests that arrived earlier: nothing will measure them any more."""
        for request_id in [each for each, known in self._ended.items() if known.arrival_s < arrival_s]:
            del self._ended[request_id]
