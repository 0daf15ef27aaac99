"""What a ledger is to the rest of the collector: one Protocol, so that a shared store can stand in for the file."""

import enum
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from inferwatch.record import LateCount, RequestRecord, Share
from inferwatch_collectors.ledger.vote import Asked, Vote

# (family, labels, value): one series of the metric store, packed by the store, absolute, and opaque to the ledger.
MetricRow = tuple[str, bytes, bytes]

# The value of a series that is no more: its row is deleted.
GONE: Final = b""


class LedgerFault(enum.StrEnum):
    """Why a ledger cannot do what it is asked. A closed set: it becomes a label."""

    FULL = "full"
    READ_ONLY = "read_only"
    LOCKED = "locked"
    CORRUPT = "corrupt"
    IO = "io"
    OTHER = "other"


class LedgerError(Exception):
    """The store did not take or give something. Nothing was changed; the same call may be made again."""

    def __init__(self, fault: LedgerFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class LedgerInUseError(Exception):
    """Another live process writes to this ledger; two writers would overwrite each other's counters."""


class Ledger(Protocol):
    """Takes finished requests together with the counters that include them."""

    @property
    def fault(self) -> str:
        """Why it was begun in memory, "" if it was not."""
        ...

    @property
    def durable(self) -> bool:
        """True when what was committed outlives this process."""

    @property
    def epoch(self) -> int:
        """Grows by one whenever the store was begun afresh: then all counters must be handed over anew."""

    async def commit(
        self,
        records: Iterable[RequestRecord],
        metric_rows: Sequence[MetricRow],
        shares: Iterable[Share] = (),
        late: Iterable[LateCount] = (),
    ) -> None:
        """Make all of it durable or nothing. A record whose id is known already is left as it was, and so is a share.

        A late count goes into its request's row, if that has none.

        Shares of idle time have no id: they are added up as they come. Both may be very many after an outage, and are
        walked through once.

        Raises:
            LedgerError: nothing was written.
        """

    async def seen(self, request_ids: Iterable[str]) -> set[str]:
        """Return those of `request_ids` that are committed.

        Raises:
            LedgerError: it cannot be told now.
        """

    async def asked(self, request_id: str) -> Asked | None:
        """Return whose request this was, None if there is no row of it.

        Raises:
            LedgerError: it cannot be told now.
        """

    async def vote(self, vote: Vote) -> Vote | None:
        """Make it the request's vote; return the one before.

        Raises:
            LedgerError: nothing was written.
        """

    async def load_metrics(self) -> list[MetricRow]:
        """Return the counters of the last commit."""

    async def recent(self, count: int) -> list[RequestRecord]:
        """Return the `count` requests committed last, newest first."""

    async def retain(self, wall_ns: int) -> int:
        """Delete one small step of what is too old or too many at Unix time `wall_ns`; return how many rows went."""

    async def close(self) -> None:
        """Let go of the store. Nothing may be called after it."""
