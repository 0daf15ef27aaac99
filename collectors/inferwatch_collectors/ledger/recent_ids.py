"""The ids booked last, in bounded memory: what a relay may send again soon is told apart without a query.

Two generations of sets instead of an ordered map: an insertion costs one hash, and the older half goes at once.
"""

from typing import Final

# Per generation, at most 5 MB each. A relay resends what it has no acknowledgement for, which is a fraction of a second
# of traffic; what is older than this is looked up in the ledger.
GENERATION_IDS: Final = 32_768


class RecentIds:
    """Remembers at least the last `generation` ids added, and at most twice as many."""

    def __init__(self, generation: int = GENERATION_IDS) -> None:
        self._generation = generation
        self._new: set[str] = set()
        self._old: set[str] = set()

    def add(self, request_id: str) -> None:
        if len(self._new) >= self._generation:
            self._old = self._new
            self._new = set()
        self._new.add(request_id)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._new or request_id in self._old
