"""Which request tries again what another failed at: the same tenant sends the same body soon after a failure.

Only hashes are remembered, under a key that this process made up and never tells.
"""

import hashlib
import secrets
from collections import OrderedDict
from typing import Final, NamedTuple

from inferwatch.record import Outcome, RequestRecord
from inferwatch.tap import Open

# Clients give up or try again within seconds; a minute later it is another request of the same kind.
WITHIN_S: Final = 60.0

# Some 200 bytes each. As many may be open, and as many failures are remembered.
MAX_REMEMBERED: Final = 20_000


class Failed(NamedTuple):
    """A request that somebody may try again."""

    trace_id: str
    span_id: str
    ended_s: float  # Unix time


class Retries:
    """Knows what failed lately."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._open: OrderedDict[str, bytes] = OrderedDict()
        self._failed: OrderedDict[bytes, Failed] = OrderedDict()
        self.cut = 0  # forgotten before their time

    def opened(self, opened: Open) -> None:
        """Take a request while its body is there."""
        if not opened.body or len(opened.body) != opened.body_bytes:
            return
        digest = hashlib.blake2b(opened.body, digest_size=16, key=self._key)
        digest.update(opened.tenant.encode("utf-8", "replace"))
        self._open[opened.request_id] = digest.digest()
        if len(self._open) > MAX_REMEMBERED:
            self._open.popitem(last=False)
            self.cut += 1

    def booked(self, record: RequestRecord) -> Failed | None:
        """Return the failure that this request tries to make good."""
        digest = self._open.pop(record.request_id, None)
        if digest is None:
            return None
        began_s = record.wall_ns / 1e9
        before = self._failed.pop(digest, None)
        if record.outcome is not Outcome.OK and record.span_id:
            self._failed[digest] = Failed(record.trace_id, record.span_id, began_s + record.duration_s)
            if len(self._failed) > MAX_REMEMBERED:
                _, oldest = self._failed.popitem(last=False)
                self.cut += oldest.ended_s > began_s - WITHIN_S
        if before is None or not 0 <= began_s - before.ended_s + 1.0 <= WITHIN_S + 1.0:
            return None
        return before
