"""Requests that ended without a count and were charged what was seen of them. Pure.

A count may come late (`record.LateCount`). Then it is charged, and what was seen is given back.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from inferwatch.record import RequestRecord, lacks_count

# Plain requests have nothing to be seen, and streams have counts: very few of a busy host are here.
MAX_UNCOUNTED: Final = 100_000

NOTHING: Final[Mapping[str, int]] = {}


class _Seen(NamedTuple):
    arrival_s: float
    charged: dict[str, int]


class Uncounted:
    """What they were charged, by budget."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def note(self, record: RequestRecord, budget: str, charged: int, arrival_s: float) -> None:
        """A request was charged what was seen of it; above MAX_UNCOUNTED it will not be given back."""
        if not charged or not lacks_count(record):
            return
        if record.request_id in self._seen or len(self._seen) < MAX_UNCOUNTED:
            self._seen.setdefault(record.request_id, _Seen(arrival_s, {})).charged[budget] = charged

    def take(self, request_id: str) -> Mapping[str, int]:
        """Return what a request was charged, and forget it."""
        seen = self._seen.pop(request_id, None)
        return NOTHING if seen is None else seen.charged

    def forget_before(self, arrival_s: float) -> None:
        """Let go of requests that arrived earlier: nothing more will be told of them."""
        for request_id in [each for each, seen in self._seen.items() if seen.arrival_s < arrival_s]:
            del self._seen[request_id]
