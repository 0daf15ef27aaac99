"""Take out of a stream what we asked the engine for, so that the client gets what it would have got without us.

vLLM 0.32, seen on the wire (tests/fixtures/vllm): with continuous usage every event carries `,"usage":{…}` behind
`choices`, and one event more, with `"choices":[]`, comes before `[DONE]`. That is all, but for one thing: without
usage each *finish* event carries `,"system_fingerprint":"…"` in the place of the usage; with usage only the
usage-only event has it. So for a client that asked for nothing, the fingerprint is put back. It is the same for the
life of an engine; a stream with one choice waits for its own usage-only event (written by the engine in the same
breath as the finish event), a stream with several uses the one learnt last, or waits for it once.

No JSON is parsed. `,"usage":{` cannot occur inside a JSON string (its quotes would be escaped), so finding the bytes
is finding the key. Events are taken whole; one longer than MAX_HELD_BYTES (log-probabilities) is let through in
pieces, holding back just what may be the beginning of a usage object. Any split of the bytes gives the same result.
"""

import enum
from typing import Final

EVENT_END: Final = b"\n\n"
USAGE: Final = b',"usage":{'
FINISHED: Final = b'"finish_reason":"'  # null while the choice goes on
FINGERPRINT: Final = b',"system_fingerprint":"'
INDEX: Final = b'"index":'

USAGE_ONLY: Final = -1  # key of the event without choices in `usages`

# Ordinary events are under 1 kB, those with log-probabilities some 10 kB. Above this, memory counts for more than
# simplicity.
MAX_HELD_BYTES: Final = 64 * 1024

# Held finish events of a stream with several choices, before any fingerprint is known. Then they go without it.
MAX_WAITING_BYTES: Final = 64 * 1024

# A usage object is some 200 bytes; one that is longer than this is not one.
MAX_USAGE_BYTES: Final = 4096


class Hide(enum.Enum):
    """What the client did not ask for."""

    ALL = enum.auto()  # no usage at all
    CONTINUOUS = enum.auto()  # usage at the end, but not on every event
    DETAILS = enum.auto()  # TGI's `details`, see `details_filter`


class Fingerprint:
    """The engine's `system_fingerprint` as last seen, shared by all streams of a relay. None: not seen yet."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: bytes | None = None  # b"" when the engine is known to send none

    def learn(self, usage_only_event: bytes) -> None:
        """Read it where it must be if there is one."""
        self.value = b""
        self.learn_if_there(usage_only_event)

    def learn_if_there(self, data: bytes) -> None:
        """Read it from the end of a plain reply. That a reply has none says nothing: it may be a list of models."""
        start = data.rfind(FINGERPRINT)
        end = data.find(b'"', start + len(FINGERPRINT))
        if start >= 0 and end > 0:
            self.value = data[start : end + 1]


# Of an engine that has no fingerprint, or has it on every event: nothing is to be put back.
NO_FINGERPRINT: Final = Fingerprint()
NO_FINGERPRINT.value = b""


class UsageFilter:
    """One stream. `usages` keeps the last usage of each choice as raw JSON: O(choices) memory."""

    __slots__ = (
        "_before",
        "_big",
        "_big_finished",
        "_big_index",
        "_fingerprint",
        "_held",
        "_held_bytes",
        "_hide_all",
        "_nothing",
        "_several",
        "_waiting",
        "usages",
    )

    def __init__(self, hide: Hide, *, several_choices: bool, fingerprint: Fingerprint, nothing: bytes = b"") -> None:
        """`nothing` stands in the place of a usage that is taken out."""
        self._hide_all = hide is Hide.ALL
        self._nothing = nothing
        self._several = several_choices
        self._fingerprint = fingerprint
        self._before = b""  # what was held back when the last call began
        self._held: list[bytes] = []  # an incomplete event
        self._held_bytes = 0
        self._waiting: list[tuple[bytes, bytes]] | None = None  # events around a missing fingerprint
        self._big = False  # inside an event that is let through in pieces
        self._big_finished = False
        self._big_index = 0
        self.usages: dict[int, bytes] = {}

    def feed(self, data: bytes) -> bytes:
        """Return what the client may see now."""
        if self._held_bytes or self._big or self._waiting is not None:
            self._before = self._unshown()
            return self._feed_held(data) if self._held_bytes or self._big else self._feed(data)
        if self._before:
            self._before = b""
        # One whole event, the rule: then its end has the only line break, and looking for one byte is cheapest.
        if data.endswith(EVENT_END) and data.find(b"\n") == len(data) - 2:
            return self._event(data)
        return self._feed(data)

    def finish(self) -> bytes:
        """Return what is still held: the body ended."""
        self._before = self._unshown()
        rest = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        return self._release(self._fingerprint.value or b"") + rest

    @property
    def is_simple(self) -> bool:
        """Whether an event with a usage and no finish reason would be shown without it, and nothing else happen."""
        return not (
            self._several or self._nothing or self._held_bytes or self._big or self._waiting is not None or self._before
        )

    @property
    def holds(self) -> bool:
        """Whether something is held back now."""
        return bool(self._held_bytes or self._big or self._waiting)

    def unshown(self) -> bytes:
        """Return what was held back, as it came, before the last call: for a fault in here, bytes first."""
        return self._before

    def _unshown(self) -> bytes:
        waiting = b"".join([before + after for before, after in self._waiting or ()])
        return waiting + b"".join(self._held)

    def _feed(self, data: bytes) -> bytes:
        if data.endswith(EVENT_END):
            return self._events(data)
        cut = data.rfind(EVENT_END) + 2
        if cut < 2:
            return self._hold(data)
        return self._events(data[:cut]) + self._hold(data[cut:])

    def _feed_held(self, data: bytes) -> bytes:
        last = self._held[-1] if self._held else b""
        if not (EVENT_END in data or (last.endswith(b"\n") and data.startswith(b"\n"))):
            return self._hold(data)
        self._held.append(data)
        data = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        out = b""
        if self._big:
            cut = data.find(EVENT_END) + 2
            out = self._piece(data[:cut], last=True)
            self._big = self._big_finished = False
            data = data[cut:]
        return out + self._feed(data) if data else out

    def _hold(self, data: bytes) -> bytes:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes <= MAX_HELD_BYTES:
            return b""
        joined = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        out = b""
        if not self._big:
            out = self._release(self._fingerprint.value or b"")
            self._big = True
            self._big_index = _index(joined) if self._several else 0
        return out + self._piece(joined, last=False)

    def _events(self, data: bytes) -> bytes:
        return b"".join([self._event(event + EVENT_END) for event in data[:-2].split(EVENT_END)])

    def _event(self, event: bytes) -> bytes:
        before, found, rest = event.rpartition(USAGE)  # near the end: backwards is the short way
        if not found:
            return event if self._waiting is None else self._other(event)
        end = rest.find(b"}") + 1
        if rest.find(b"{", 0, end) >= 0:
            end = object_end(b"{" + rest, 0) - 1
        if end <= 0:
            return event
        usage, after = b"{" + rest[:end], self._nothing + rest[end:]
        if before.endswith(b"[]"):
            return self._usage_only(event, usage)
        self.usages[_index(event) if self._several else 0] = usage
        if self._hide_all:
            if before.rfind(FINISHED) >= 0:
                return self._finish_event(before, after)
            if self._waiting is not None:
                return self._other(before + after)
        return before + after

    def _usage_only(self, event: bytes, usage: bytes) -> bytes:
        self.usages[USAGE_ONLY] = usage
        if not self._hide_all:
            return event
        if self._fingerprint is not NO_FINGERPRINT:  # all streams share it, and what this event has is not put back
            self._fingerprint.learn(event)
        return self._release(self._fingerprint.value or b"")

    def _finish_event(self, before: bytes, after: bytes) -> bytes:
        if self._several and self._fingerprint.value is not None:
            return before + self._fingerprint.value + after
        if self._waiting is None:
            self._waiting = []
        self._waiting.append((before, after))
        return self._bounded()

    def _other(self, event: bytes) -> bytes:
        """An event behind a waiting one. Only with several choices may the fingerprint still come."""
        if not self._several:
            return self._release(self._fingerprint.value or b"") + event
        assert self._waiting is not None
        self._waiting.append((event, b""))
        return self._bounded()

    def _bounded(self) -> bytes:
        assert self._waiting is not None
        if sum(len(before) + len(after) for before, after in self._waiting) > MAX_WAITING_BYTES:
            return self._release(self._fingerprint.value or b"")
        return b""

    def _release(self, fingerprint: bytes) -> bytes:
        waiting, self._waiting = self._waiting, None
        if not waiting:
            return b""
        return b"".join([before + fingerprint + after if after else before for before, after in waiting])

    def _piece(self, data: bytes, *, last: bool) -> bytes:
        """Let a part of an over-long event through, without usage; hold back an unfinished end unless `last`."""
        out: list[bytes] = []
        while (start := data.find(USAGE)) >= 0:
            end = object_end(data, start + len(USAGE) - 1)
            if end < 0:
                break
            self.usages[self._big_index] = data[start + len(USAGE) - 1 : end]
            out.append(data[:start] + self._nothing)
            self._big_finished = self._big_finished or FINISHED in data[:start]
            if self._big_finished and self._hide_all:
                out.append(self._fingerprint.value or b"")
            data = data[end:]
        keep = 0 if last else _unfinished(data, start)
        shown = data[: len(data) - keep]
        # In what is kept as well: the next piece begins with it, but may not reach back to the needle's beginning.
        self._big_finished = self._big_finished or FINISHED in (data if start < 0 else data[:start])
        out.append(shown)
        if keep:
            self._held.append(data[len(data) - keep :])
            self._held_bytes = keep
        return b"".join(out)


def object_end(data: bytes, start: int) -> int:
    """Return the index behind the object that begins at `start`, or -1 if it is not complete."""
    end = data.find(b"}", start) + 1
    if end <= 0:
        return -1
    opened = data.count(b"{", start, end)
    if opened == 1:
        return end
    depth = opened - 1
    while depth:
        close = data.find(b"}", end) + 1
        if close <= 0:
            return -1
        depth += data.count(b"{", end, close) - 1
        end = close
    return end


def _index(event: bytes) -> int:
    """Return the index of the event's choice: the first `"index":` of an event is that of its choice."""
    start = event.find(INDEX)
    if start < 0:
        return 0
    digits = event[start + len(INDEX) : start + len(INDEX) + 8].lstrip()
    end = 0
    while end < len(digits) and digits[end : end + 1].isdigit():
        end += 1
    return int(digits[:end] or b"0")


def _unfinished(data: bytes, usage_start: int) -> int:
    """Return how many bytes at the end may belong to a usage object, or to one of the needles, that goes on."""
    if usage_start >= 0 and len(data) - usage_start <= MAX_USAGE_BYTES:
        return len(data) - usage_start
    longest = max(len(USAGE), len(FINISHED)) - 1
    return min(longest, len(data))
