"""The fast lane: a read that is one chunk with one ordinary event is dealt with here, and touches one small object.

Between two events of a stream the processor serves hundreds of others, so all that is kept for it has left the caches
by then, and an event costs the memory it touches, not the instructions it takes. Measured with parser, exchange,
observer and filter in its way: with ten streams the relay needed as much as a bare pipe, with a hundred a third more at
the same rate. So the account of a reply's reads, which every read touches, and the way of the ordinary one are together
in here. Code goes cold as well: each call of a method of bytes takes 0.2 to 0.5 us there, three times what it takes in
a loop. So there are few, on the read itself and not on pieces of it (docs/topics/performance.md).

Ordinary is what the long way would pass on with nothing taken out but one usage. All else goes the long way, and so
does every read when something is held back, cut short or dropped (`Exchange.lane`). Both ways show, keep and mirror the
same for any split of the bytes; which one was taken is not to be seen from outside.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from inferwatch.relay.outbox import READ_OVERHEAD_BYTES
from inferwatch.relay.usage_filter import FINISHED, USAGE

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
_STREAM_END: Final = b"\n\n\r\n"  # of an event, and of the chunk
_NESTED: Final = ord("{")  # a number: looking for one byte is cheaper than for bytes
_OPENS_LIST: Final = ord("[")

# Each chunk's first line, by the size of what is in it. To write one with `%x` costs more than to look it up.
_HEAD_OF_SIZE: Final = tuple(b"%x\r\n" % size for size in range(TAIL_READ_BYTES + 1))


def _heads_of_chunks() -> tuple[bytes, ...]:
    """Return the only first line that a chunk of so many bytes can have; where none can, what no read begins with."""
    sizes = len(_HEAD_OF_SIZE[-1]) + TAIL_READ_BYTES + len(_CRLF) + 1
    heads = [bytes(sizes)] * sizes  # longer than any that is looked up
    for size, head in enumerate(_HEAD_OF_SIZE[1:], 1):
        heads[len(head) + size + len(_CRLF)] = head
    return tuple(heads)


_HEAD_OF_CHUNK: Final = _heads_of_chunks()
_MOST_BYTES: Final = len(_HEAD_OF_CHUNK) - 1


class Lane:
    """The account of one reply's reads. `usage` is that of the last ordinary event, without its braces."""

    __slots__ = (
        "_client",
        "_hides",
        "_id",
        "_mirror",
        "_observer",
        "_outbox",
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
        self._outbox = mirror.outbox
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
        size, end = len(data), _STREAM_END if self._hides else _CRLF
        if size > _MOST_BYTES or not data.startswith(head := _HEAD_OF_CHUNK[size]) or not data.endswith(end):
            return False
        start, shown, usage = len(head), data, None
        if self._hides:
            if data.find(b"\n", start) != size - len(_STREAM_END):
                return False
            at = data.rfind(USAGE, start)
            if at >= 0:
                closed = data.find(b"}", at)
                usage = data[at + len(USAGE) : closed]
                if closed < 0 or _NESTED in usage or data[at - 2] == _OPENS_LIST or data.find(FINISHED, start, at) >= 0:
                    return False
                closed += 1
                head = _HEAD_OF_SIZE[size - start - len(_CRLF) - (closed - at)]
                shown = b"".join((head, data[start:at], data[closed:]))
        client, outbox = self._client, self._outbox
        if client is None or client.is_closing():
            return False
        if outbox.pending_bytes > outbox.bound_bytes and not self._make_room():
            return False
        client.write(shown)
        body = data[start : -len(_CRLF)]
        self.last_ns = stamp_ns
        self.count += 1
        self.size += len(body)
        self._tail_4, self._tail_3, self._tail_2, self._tail_1 = self._tail_3, self._tail_2, self._tail_1, body
        if usage is not None:
            self.usage = usage
        outbox.reads.append((self._id, stamp_ns, body))
        outbox.pending_bytes += size + READ_OVERHEAD_BYTES
        return True

    def _make_room(self) -> bool:
        """Ask the mirror; whatever goes wrong there is none of the stream's business."""
        try:
            return self._mirror.make_room()
        except Exception as error:  # noqa: BLE001 - the fence, see `observer`
            self._client = None
            if self._observer is not None:
                self._observer.fault("read", error)
            return False

    @property
    def tail(self) -> bytes:
        """The end of the reply."""
        return self._tail_4 + self._tail_3 + self._tail_2 + self._tail_1

    def clear(self) -> None:
        """Let go of everything: it has been told, and the observer may be kept until that is acknowledged."""
        self._observer = self._client = None
        self._tail_1 = self._tail_2 = self._tail_3 = self._tail_4 = b""
