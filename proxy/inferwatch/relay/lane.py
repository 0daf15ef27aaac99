"""The fast lane: a read that is one chunk with one ordinary event is dealt with here, and touches one small object.

Between two events of a stream the processor serves hundreds of others, so all that is kept for it has left the caches
by then, and an event costs the memory it touches, not the instructions it takes. Measured with parser, exchange,
observer and filter in its way: with ten streams the relay needed as much as a bare pipe, with a hundred a third more at
the same rate, and nothing but fewer objects made that less (docs/topics/performance.md). So the account of a reply's
reads, which every read touches, and the way of the ordinary one are together in here.

Ordinary is what the long way would pass on with nothing taken out but one usage. All else goes the long way, and so
does every read when something is held back, cut short or dropped (`Exchange.lane`). Both ways show, keep and mirror the
same for any split of the bytes; which one was taken is not to be seen from outside.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from inferwatch.relay.usage_filter import EVENT_END, FINISHED, USAGE

if TYPE_CHECKING:
    from inferwatch.relay.mirror import Mirror
    from inferwatch.relay.observer import Observer

# The end of a reply is kept for finish reasons and usage when copies were dropped: the last four reads, for the finish
# event, the usage-only event and [DONE] may be one each; and a usage object is within the last 2 kB of a plain reply.
TAIL_READ_BYTES: Final = 2048

# Before a read of which the beginning is not kept, so that nobody takes it for the rest of what stands before it: the
# end of one text and the middle of another can look like a usage.
CUT_MARK: Final = b"\n\0"
_TAIL_CUT: Final = len(CUT_MARK) - TAIL_READ_BYTES

_CRLF: Final = b"\r\n"
_NESTED: Final = ord("{")  # a number: looking for one byte is cheaper than for bytes


class Lane:
    """The account of one reply's reads. `usage` is that of the last ordinary event, without its braces."""

    __slots__ = (
        "_client",
        "_hides",
        "_id",
        "_mirror",
        "_observer",
        "_tail_1",
        "_tail_2",
        "_tail_3",
        "_tail_4",
        "count",
        "first_ns",
        "last_ns",
        "size",
        "usage",
    )

    def __init__(self, observer: "Observer", mirror: "Mirror", number: int) -> None:
        self._observer: Observer | None = observer
        self._mirror = mirror
        self._id = number
        self._client: asyncio.Transport | None = None  # closed to all reads
        self._hides = False
        self._tail_1 = self._tail_2 = self._tail_3 = self._tail_4 = b""  # the last read first
        self.count = self.size = self.first_ns = self.last_ns = 0
        self.usage: bytes | None = None

    def open(self, client: asyncio.Transport, *, hides_usage: bool) -> "Lane":
        """Make ready for what comes next of a stream that goes to `client` in chunks."""
        self._client = client
        self._hides = hides_usage
        return self

    def keep(self, stamp_ns: int, data: bytes) -> None:
        """Account for a read that goes the long way."""
        if not self.count:
            self.first_ns = stamp_ns
        self.last_ns = stamp_ns
        self.count += 1
        self.size += len(data)
        kept = data if len(data) <= TAIL_READ_BYTES else CUT_MARK + data[_TAIL_CUT:]
        self._tail_4, self._tail_3, self._tail_2, self._tail_1 = self._tail_3, self._tail_2, self._tail_1, kept

    def take(self, stamp_ns: int, data: bytes) -> bool:
        """Pass on, account for and mirror one read, if it is ordinary and all is well; if not, nothing has happened.

        What goes the long way instead is met by the parser where it stopped, for a chunk that is passed over as a whole
        leaves it between two chunks.
        """
        size, _, chunk = data.partition(_CRLF)
        body = chunk[:-2]
        if not 0 < len(body) <= TAIL_READ_BYTES or chunk[-2:] != _CRLF or size != b"%x" % len(body):
            return False
        usage = None
        if self._hides:
            if not body.endswith(EVENT_END) or body.find(b"\n") != len(body) - 2:
                return False
            before, found, rest = body.rpartition(USAGE)
            if found:
                usage, closed, after = rest.partition(b"}")
                if not closed or _NESTED in usage or before.endswith(b"[]") or before.find(FINISHED) >= 0:
                    return False
                shown = before + after
                data = b"%x\r\n%b\r\n" % (len(shown), shown)
        client, mirror = self._client, self._mirror
        if client is None or client.is_closing() or not mirror.has_room:
            return False
        client.write(data)
        try:
            self.last_ns = stamp_ns
            self.count += 1
            self.size += len(body)
            self._tail_4, self._tail_3, self._tail_2, self._tail_1 = self._tail_3, self._tail_2, self._tail_1, body
            if usage is not None:
                self.usage = usage
            mirror.add(self._id, stamp_ns, body)
        except Exception as error:  # noqa: BLE001 - the fence, see `observer`
            self._client = None
            if self._observer is not None:
                self._observer.fault("read", error)
        return True

    @property
    def tail(self) -> bytes:
        """The end of the reply."""
        return self._tail_4 + self._tail_3 + self._tail_2 + self._tail_1

    def clear(self) -> None:
        """Let go of everything: it has been told, and the observer may be kept until that is acknowledged."""
        self._observer = self._client = None
        self._tail_1 = self._tail_2 = self._tail_3 = self._tail_4 = b""
