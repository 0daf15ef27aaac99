"""The body of an answer, from reads to what a dialect takes: events of a stream, or the whole of a plain reply.

Which kind it is, the response head says. All kinds take any split of the bytes and the news that some are missing.
"""

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from inferwatch_collectors.dialects.alike import Alike
from inferwatch_collectors.dialects.base import CUT_INFLATED, CUT_LONG_EVENT, CUT_LONG_REPLY, Dialect, Observation
from inferwatch_collectors.dialects.ndjson import LineParser
from inferwatch_collectors.dialects.sse import SSEParser

if TYPE_CHECKING:
    from collections.abc import Iterator

# A plain reply is parsed when it is whole. With 20 logprobs a token, some 1.3 kB each, this is a reply of 12,000
# tokens; for a longer one the usage that the relay kept must do.
MAX_REPLY_BYTES: Final = 16 * 1024 * 1024

# Inflated bytes of one read. Deflate makes at most 1,032 from one, so a read of 64 KiB could become 64 MiB; text that a
# model wrote shrinks by ten or so. Above this it is an attack, not an answer.
MAX_INFLATED_BYTES: Final = 16 * 1024 * 1024

# Inflate piecewise, so that the parser downstream sees the pieces and not the sum.
_INFLATE_STEP: Final = 256 * 1024

# Whether events are alike, and again whenever the class of what is generated changes: an answer has a handful. Where
# events never are, as with several choices, it is not looked for in each.
MAX_TRIES: Final = 16

_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS


class Body(Protocol):
    """One answer's body on its way to its reader."""

    def feed(self, stamp_ns: int, data: bytes) -> None:
        """Take one read."""

    def gap(self) -> None:
        """Some reads are missing here."""

    def finish(self, stamp_ns: int) -> None:
        """Nothing more will come."""


class Unread:
    """A body that is only counted."""

    __slots__ = ()

    def feed(self, stamp_ns: int, data: bytes) -> None:
        """Ignore it."""

    def gap(self) -> None:
        """Ignore it."""

    def finish(self, stamp_ns: int) -> None:
        """Ignore it."""


UNREAD: Final = Unread()


class EventStream:
    """Server-sent events. One that is like an event before it goes a shorter way (`alike`)."""

    __slots__ = ("_alike", "_dialect", "_observation", "_parser", "_tries_left", "_unlike")

    def __init__(self, dialect: Dialect, observation: Observation) -> None:
        self._parser = SSEParser()
        self._observation = observation
        self._dialect = dialect
        self._alike: Alike | None = None
        self._unlike = False  # the last event was not
        self._tries_left = MAX_TRIES

    def feed(self, stamp_ns: int, data: bytes) -> None:
        """Hand on the events that `data` completes."""
        parser, alike = self._parser, self._alike
        if alike is not None and parser.idle and alike.take(stamp_ns, data):
            self._unlike = False
            return
        lone = parser.lone_event(data)
        if lone is not None:
            self._dialect.read_event(self._observation, stamp_ns, b"", lone)
            if self._tries_left:
                self._go_by(lone)
            return
        for name, value in parser.feed(data):
            self._dialect.read_event(self._observation, stamp_ns, name, value)
        if parser.oversized:
            self._observation.lossy = True
            self._observation.cut(CUT_LONG_EVENT)

    def _go_by(self, event: bytes) -> None:
        """Look for events like this one from now on, unless the last one was like those looked for."""
        if self._alike is not None and not self._unlike:
            self._unlike = True
            return
        self._tries_left -= 1
        self._unlike = False
        self._alike = self._dialect.alike(self._observation, event) or self._alike

    def gap(self) -> None:
        """Look for the next event."""
        self._parser.resync()

    def finish(self, stamp_ns: int) -> None:
        """Hand on a last event without a blank line after it, if its object is whole."""
        seen = self._observation
        malformed, lossy = seen.malformed, seen.lossy
        for name, value in self._parser.finish():
            self._dialect.read_event(seen, stamp_ns, name, value)
        # An event that the end of the stream cut in two is neither a fault of the engine's nor of ours.
        seen.malformed, seen.lossy = malformed, lossy


class RecordStream:
    """Newline-delimited JSON."""

    __slots__ = ("_dialect", "_observation", "_parser")

    def __init__(self, dialect: Dialect, observation: Observation) -> None:
        self._parser = LineParser()
        self._observation = observation
        self._dialect = dialect

    def feed(self, stamp_ns: int, data: bytes) -> None:
        """Hand on the records that `data` completes."""
        for record in self._parser.feed(data):
            self._dialect.read_event(self._observation, stamp_ns, b"", record)
        if self._parser.oversized:
            self._observation.lossy = True
            self._observation.cut(CUT_LONG_EVENT)

    def gap(self) -> None:
        """Look for the next record."""
        self._parser.resync()

    def finish(self, stamp_ns: int) -> None:
        """Hand on a last record without a line end, if its object is whole."""
        seen = self._observation
        malformed, lossy = seen.malformed, seen.lossy
        for record in self._parser.finish():
            self._dialect.read_event(seen, stamp_ns, b"", record)
        # As with events: what the end of the stream cut in two is nobody's fault.
        seen.malformed, seen.lossy = malformed, lossy


class PlainReply:
    """One JSON document, read when it is whole."""

    __slots__ = ("_dialect", "_observation", "_parts", "_size")

    def __init__(self, dialect: Dialect, observation: Observation) -> None:
        self._dialect = dialect
        self._observation = observation
        self._parts: list[bytes] | None = []  # None: given up
        self._size = 0

    def feed(self, stamp_ns: int, data: bytes) -> None:
        """Keep it, up to MAX_REPLY_BYTES."""
        self._size += len(data)
        if self._size > MAX_REPLY_BYTES:
            self._observation.cut(CUT_LONG_REPLY)
            self.gap()
        elif self._parts is not None:
            self._parts.append(data)

    def gap(self) -> None:
        """Give it up."""
        self._observation.lossy = True
        self._parts = None

    def finish(self, stamp_ns: int) -> None:
        """Read it."""
        if self._parts:
            whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._dialect.read_reply(self._observation, whole)
            if self._observation.listener is not None:
                self._dialect.tell_reply(self._observation, stamp_ns, whole)
        self._parts = None


class Inflated:
    """A body under `content-encoding: gzip` or `deflate`. What cannot be inflated is lost, and all after it."""

    __slots__ = ("_format", "_held", "_inner", "_observation", "_zlib")

    def __init__(self, encoding: str, inner: Body, observation: Observation) -> None:
        self._inner = inner
        self._observation = observation
        self._format = _GZIP if encoding == "gzip" else 0  # 0: wait for two bytes to tell zlib from raw deflate
        self._held = b""
        self._zlib = zlib.decompressobj(_GZIP) if self._format else None

    def feed(self, stamp_ns: int, data: bytes) -> None:
        """Inflate it and hand it on."""
        if self._zlib is None:
            if self._format:
                return
            self._held += data
            if len(self._held) < 2:
                return
            data, self._held = self._held, b""
            self._format = _deflate_format(data)
            self._zlib = zlib.decompressobj(self._format)
        try:
            for piece in self._inflate(data):
                self._inner.feed(stamp_ns, piece)
        except zlib.error:
            self._lose()

    def gap(self) -> None:
        """Give up: nothing can be inflated after a hole."""
        self._inner.gap()
        self._lose()

    def finish(self, stamp_ns: int) -> None:
        """Pass it on."""
        self._inner.finish(stamp_ns)

    def _inflate(self, data: bytes) -> "Iterator[bytes]":
        left = MAX_INFLATED_BYTES
        while data and self._zlib is not None:
            piece = self._zlib.decompress(data, _INFLATE_STEP)
            left -= len(piece)
            if left < 0:
                self._observation.cut(CUT_INFLATED)
                self._lose()
                return
            if piece:
                yield piece
            data = self._zlib.unconsumed_tail
            if self._zlib.eof:  # gzip members may follow one another
                data = self._zlib.unused_data
                self._zlib = zlib.decompressobj(self._format)

    def _lose(self) -> None:
        self._format = self._format or _ZLIB
        self._zlib = None
        self._observation.lossy = True


def _deflate_format(start: bytes) -> int:
    """Return the window bits for "deflate": zlib by RFC 9110, told by its header (RFC 1950 §2.2); some send it raw."""
    is_zlib = start[0] & 0x0F == zlib.DEFLATED and int.from_bytes(start[:2], "big") % 31 == 0
    return _ZLIB if is_zlib else _RAW


_READERS: Final[dict[str, Callable[[Dialect, Observation], Body]]] = {
    "sse": EventStream,
    "ndjson": RecordStream,
    "json": PlainReply,
}


def body_reader(dialect: Dialect, observation: Observation, framing: str, encoding: str) -> Body | None:
    """Return what reads a body.

    Args:
        framing: "sse", "ndjson", "json" or "" (none of them: nothing to read).
        encoding: the content-encoding as it came.

    Returns:
        None if there is something to read but nothing here can decode it.
    """
    if not dialect.reads or not framing:
        return UNREAD
    inner: Body = _READERS[framing](dialect, observation)
    if not encoding:
        return inner
    encoding = encoding.strip().lower().removeprefix("x-")
    if encoding in {"", "identity"}:
        return inner
    return Inflated(encoding, inner, observation) if encoding in {"gzip", "deflate"} else None
