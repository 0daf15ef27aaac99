"""Server-sent events, cut out of a byte stream that may be split anywhere (WHATWG HTML, "Parsing an event stream").

Strategy: an engine under light load writes one event per read, `data: {…}\\n\\n`, and nothing else. Such reads, and
reads that hold several such events, are recognised with a few C-speed scans and sliced. Everything else (other line
ends, comments, named events, an event over many reads) goes line by line through `_read_line`, where all of the state
lives:

* `_partial` the line that has begun, `_lines` the data lines of the event that has begun, `_name` its `event:` field;
* `_mode` READ, or SKIP (drop everything up to the next blank line: an event above the limit), or RESYNC (bytes are
  missing: look at the first whole line to decide between the two).

An event is handed out by the read that brings the first byte of its closing line end; a `\\n` that belongs to a `\\r`
may come later. So the same bytes give the same events, with the same reads completing them, however they are split.
"""

from typing import Final

# (value of the last `event:` field or b"", data lines joined with \n). A tuple, not a class: one per token.
Event = tuple[bytes, bytes]

# The largest event seen from a real engine is 552,790 bytes (echo with 20 logprobs a token). Some fifteen times that
# leaves room for long prompts; above it the event is given up, so that a stream without blank lines cannot fill the
# memory.
MAX_EVENT_BYTES: Final = 8 * 1024 * 1024

_READ: Final = 0
_SKIP: Final = 1
_RESYNC: Final = 2

_BOM: Final = b"\xef\xbb\xbf"
_FIELD_STARTS: Final = (b"data:", b"event:", b":")


class SSEParser:
    """Incremental parser. Feed any split of the bytes; holds at most `max_event_bytes` and a line end."""

    __slots__ = ("_at_start", "_lines", "_max", "_mode", "_name", "_partial", "_size", "_skip_lf", "idle", "oversized")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._partial = bytearray()
        self._lines: list[bytes] = []
        self._size = 0  # bytes of the lines of the event that has begun, without `_partial`
        self._name = b""
        self._mode = _READ
        self._skip_lf = False  # the last byte was \r: a \n to come belongs to it
        self._at_start = True  # only the very first line may carry a byte order mark
        self.idle = False  # nothing carried over: the next read may take the fast path
        self.oversized = 0  # events given up because of their size

    def lone_event(self, data: bytes) -> bytes | None:
        """Return the event's data if `data` is one whole plain event and nothing else; if not, nothing has happened.

        An ordinary read of a stream. `feed` takes it as well, for more.
        """
        if not (self.idle and data.startswith(b"data: ") and data.endswith(b"\n\n")):
            return None
        value = data[6:-2]
        # Integers, not bytes: that is one memchr.
        return None if 10 in value or 13 in value or len(data) > self._max else value

    def feed(self, data: bytes) -> list[Event]:
        """Return the events completed by `data`."""
        plain = self.idle and data.startswith(b"data: ") and data.endswith(b"\n\n") and 13 not in data
        if plain and len(data) <= self._max:
            parts = data[:-2].split(b"\n\n")
            # One line each, or a single \n would hide in one of them.
            if data.count(b"\n") == 2 * len(parts) and all(part.startswith(b"data: ") for part in parts):
                return [(b"", part[6:]) for part in parts]
        return self._feed_lines(data)

    def resync(self) -> None:
        """Bytes are missing here: forget the event that has begun and find the next boundary."""
        self._forget()
        self._partial.clear()
        self._skip_lf = False
        self._at_start = False
        self.idle = False
        self._mode = _RESYNC

    def finish(self) -> list[Event]:
        """Return the event that the end of the stream left without its blank line, if there is one.

        Browsers discard it. Here it is a token that the engine made, when its data is whole; the reader of the data can
        tell.
        """
        if self._partial:
            line = bytes(self._partial)
            self._partial.clear()
            self._read_line(line)
        last = self._read_line(b"")
        return [] if last is None else [last]

    def _feed_lines(self, data: bytes) -> list[Event]:
        if not data:
            return []
        if self._skip_lf:
            self._skip_lf = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._partial:
            self._partial += lines[0]
            lines[0] = bytes(self._partial)
            self._partial.clear()
        events = [event for line in lines if (event := self._read_line(line)) is not None]
        self._carry(rest)
        self.idle = not (self._partial or self._size or self._skip_lf or self._mode or self._at_start or self._name)
        return events

    def _carry(self, rest: bytes) -> None:
        """Keep the line that has begun, within the limit. Of a skipped one it matters only that it is not blank."""
        if self._mode == _SKIP:
            if rest and not self._partial:
                self._partial += b":"
            return
        if self._size + len(self._partial) + len(rest) > self._max:
            self._give_up()
            self._partial[:] = b":"
            return
        self._partial += rest

    def _read_line(self, line: bytes) -> Event | None:
        """Take one whole line; return the event that it completes."""
        too_long = self._size + len(line) > self._max  # as it came, or a split would decide whether the mark counts
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if self._mode == _RESYNC:
            # A line that begins like a field is one: inside JSON a quote is escaped, so a piece of a string that
            # happens to begin with `data:` cannot decode to an object. Anything else is the end of a broken event.
            self._mode = _READ if not line or line.startswith(_FIELD_STARTS) else _SKIP
        if self._mode == _SKIP:
            if not line:
                self._mode = _READ
            return None
        if not line:
            return self._dispatch()
        if too_long:
            self._give_up()
            return None
        self._read_field(line)
        return None

    def _read_field(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        if field == b"data":
            self._lines.append(value.removeprefix(b" "))
            self._size += len(line)
        elif field == b"event":
            self._name = value.removeprefix(b" ")

    def _dispatch(self) -> Event | None:
        event = (self._name, b"\n".join(self._lines)) if self._lines else None
        self._forget()
        return event

    def _give_up(self) -> None:
        self.oversized += 1
        self._forget()
        self._mode = _SKIP

    def _forget(self) -> None:
        self._lines.clear()
        self._size = 0
        self._name = b""
