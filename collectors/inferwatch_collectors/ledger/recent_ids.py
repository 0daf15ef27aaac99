"""The ids booked last, in bounded memory: what a relay may send again soon is told apart without a query.

Two generations of sets instead of an ordered map: an insertion costs one hash, and the older half goes at once. While
nothing is committed it stays: nobody else knows of these yet.
"""

from collections.abc import Callable
from typing import Final

# Per generation, at most 5 MB each. A relay resends what it has no acknowledgement for, which is a fraction of a second
# of traffic; what is older than this is looked up in the ledger.
GENERATION_IDS: Final = 32_768

# Per generation while nothing is committed: both are as many as the journal keeps records, some 80 MB.
MAX_KEPT_IDS: Final = 250_000


class RecentIds:
    """Remembers at least the last `generation` ids added, and at most twice as many.

    While `may_forget` says no it is all of them, or at least the last `max_kept` and at most twice as many.
    """

    def __init__(
        self,
        generation: int = GENERATION_IDS,
        *,
        may_forget: Callable[[], bool] = lambda: True,
        max_kept: int = MAX_KEPT_IDS,
    ) -> None:
        self._generation = generation
        self._may_forget = may_forget
        self._max_kept = max_kept
        self._new: set[str] = set()
        self._old: set[str] = set()

    def add(self, request_id: str) -> None:
        if len(self._new) >= self._generation and (self._may_forget() or len(self._new) >= self._max_kept):
            self._old = self._new
            self._new = set()
        self._new.add(request_id)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._new or request_id in self._old
