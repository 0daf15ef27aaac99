"""Take TGI's `details` out of a stream for a client that did not ask for them.

They are in the last event alone, as `,"details":{…}` behind `generated_text`; who did not ask gets `,"details":null`
there, as on every other event. Inside a JSON string the quotes would be escaped, so the bytes are the key. An event is
held until it is whole; one that is too long for that passes in pieces.
"""

from typing import Final

from inferwatch.relay.usage_filter import EVENT_END, USAGE_ONLY, object_end

DETAILS: Final = b',"details":{'
NOTHING: Final = b',"details":null'

# The last event has the whole text once more: a million characters are more than any context.
MAX_HELD_BYTES: Final = 1024 * 1024


class DetailsFilter:
    """One stream. `usages` keeps the details as raw JSON, as `UsageFilter` does a usage."""

    __slots__ = ("_before", "_before_count", "_held", "_size", "usages")

    def __init__(self) -> None:
        self._held: list[bytes] = []  # an incomplete event
        self._size = 0
        self._before = self._held  # what was held back when the last call began: so many pieces of it
        self._before_count = 0
        self.usages: dict[int, bytes] = {}

    def feed(self, data: bytes) -> bytes:
        """Return what the client may see now."""
        held = self._held
        self._before, self._before_count = held, len(held)
        last = held[-1] if held else b""
        if not (EVENT_END in data or (last.endswith(b"\n") and data.startswith(b"\n"))):
            return self._hold(data)
        if held:
            data = b"".join(held) + data
            self._held, self._size = [], 0
        cut = data.rfind(EVENT_END) + len(EVENT_END)
        rest = data[cut:]
        return self._hidden(data[:cut]) + (self._hold(rest) if rest else b"")

    def finish(self) -> bytes:
        """Return what is still held: the body ended."""
        self._before, self._before_count = self._held, len(self._held)
        return self._hidden(self._release())

    @property
    def holds(self) -> bool:
        """Whether something is held back now."""
        return bool(self._held)

    def unshown(self) -> bytes:
        """Return what was held back, as it came, before the last call."""
        return b"".join(self._before[: self._before_count])

    def _hold(self, data: bytes) -> bytes:
        self._held.append(data)
        self._size += len(data)
        return self._release() if self._size > MAX_HELD_BYTES else b""

    def _release(self) -> bytes:
        held, self._held, self._size = self._held, [], 0
        return b"".join(held)

    def _hidden(self, events: bytes) -> bytes:
        start = events.rfind(DETAILS)
        if start < 0:
            return events
        end = object_end(events, start + len(DETAILS) - 1)
        if end < 0:
            return events
        self.usages[USAGE_ONLY] = events[start + len(DETAILS) - 1 : end]
        return events[:start] + NOTHING + events[end:]
