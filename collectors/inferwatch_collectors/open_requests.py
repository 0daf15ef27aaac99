"""What is open: the requests of each relay, by its connection."""

from collections.abc import Iterator

from inferwatch.tap import Hello, Open
from inferwatch_collectors.cardinality import RequestLabels
from inferwatch_collectors.exchange import Exchange
from inferwatch_collectors.neighbours import Prompt


class Entry:
    """One open request of one relay."""

    __slots__ = ("exchange", "labels", "opened", "plain", "plain_bytes", "prompt")

    def __init__(self, opened: Open) -> None:
        self.opened = opened
        self.exchange: Exchange | None = None  # None: not watched, or given up after a fault
        self.labels: RequestLabels | None = None  # None: booked before, so it counts for nothing
        self.plain = True  # the answer is kept whole until its end
        self.plain_bytes = 0
        self.prompt: Prompt | None = None  # None: too light to hold up others


class Link:
    """One relay process on one connection. Made by `Booking.connect`."""

    def __init__(self, hello: Hello, now_ns: int) -> None:
        self.worker = hello.worker
        self.pid = hello.pid
        self.boot = hello.boot
        self.connected_ns = now_ns
        self.stats_ns = 0  # when its last Stats came; 0: none yet
        self.lag_ns = 0  # the worst of its loop in the second before that
        self.told_ns = 0  # when that was sent: all that the relay saw before has been applied
        self.entries: dict[int, Entry] = {}

    def exchanges(self) -> Iterator[Exchange]:
        """Yield what is open and being read."""
        for entry in self.entries.values():
            if entry.exchange is not None and entry.labels is not None:
                yield entry.exchange
