"""Who listens to a request, behind a fence: a fault of one costs what it would have heard, and nothing else.

To tell somebody a piece of text costs several times what it costs to keep one, so pieces of a choice are told a few at
a time, in their order. Nobody needs them sooner: a loop is looked for once in so many pieces anyway.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from inferwatch.record import RequestRecord
from inferwatch.tap import Open
from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL, Dialect
from inferwatch_collectors.dialects.content import Ear, Listener
from inferwatch_collectors.fence import Fence

# Told at a time. A loop is looked for once in so many anyway, and that is what there is the least time for.
PIECES: Final = 8
# A piece is a token or a few. Who speaks in longer ones is told at once, so what waits of a choice has a bound.
LONG_CHARS: Final = 128


class Audience(Protocol):
    """Chooses what to listen to."""

    def opened(self, opened: Open, dialect: Dialect) -> Listener | None:
        """A request began; its body is there if it was mirrored, and `dialect.prompt` reads it. None: not this one."""


class Audiences:
    """All that may listen, each with the stage under which its faults are counted."""

    def __init__(self, audiences: Sequence[tuple[str, Audience]], fence: Fence) -> None:
        self._audiences: Final = tuple(audiences)
        self._fence = fence

    def opened(self, opened: Open, dialect: Dialect) -> Ear | None:
        """Return who listens to this request, None if nobody does."""
        listeners: list[tuple[str, Listener]] = []
        for stage, audience in self._audiences:
            listener = self._fence.run(stage, opened.arrival_ns, audience.opened, opened, dialect)
            if listener is not None:
                listeners.append((stage, listener))
        return _Fenced(tuple(listeners), self._fence, opened.arrival_ns) if listeners else None


class _Fenced:
    """Those who listen to one request. After a fault one hears no more of it."""

    __slots__ = ("_fence", "_listeners", "_now_ns", "_waiting")

    def __init__(self, listeners: tuple[tuple[str, Listener], ...], fence: Fence, now_ns: int) -> None:
        self._listeners = listeners
        self._fence = fence
        self._now_ns = now_ns  # of the last text: only for how often faults are logged
        self._waiting: dict[int, list[str]] = {}  # pieces by choice and class; of a choice no more than one class

    def text(self, stamp_ns: int, choice: int, classes: int, text: str) -> None:
        """Keep it, or tell all."""
        key = choice << 3 | classes
        pieces = self._waiting.get(key)
        if pieces is None:
            pieces = self._begin(stamp_ns, choice, key)
        pieces.append(text)
        if len(pieces) >= PIECES or len(text) > LONG_CHARS:
            self._tell_text(stamp_ns, key)

    def missing(self) -> None:
        """Tell all."""
        self.ended()
        self._tell("missing")

    def ended(self) -> None:
        """Tell all what waits."""
        for key in list(self._waiting):
            self._tell_text(self._now_ns, key)

    def closed(self, record: RequestRecord) -> None:
        """Tell all."""
        self._tell("closed", record)

    def _begin(self, stamp_ns: int, choice: int, key: int) -> list[str]:
        """Let pieces of one class wait; those of another came before them."""
        for classes in (REASONING, ANSWER, TOOL_CALL):
            if (before := choice << 3 | classes) in self._waiting:
                self._tell_text(stamp_ns, before)
        pieces = self._waiting[key] = []
        return pieces

    def _tell_text(self, stamp_ns: int, key: int) -> None:
        pieces = self._waiting.pop(key)
        self._now_ns = max(self._now_ns, stamp_ns)
        self._tell("text", stamp_ns, key >> 3, key & 7, "".join(pieces), len(pieces))

    def _tell(self, what: str, *args: object) -> None:
        for entry in self._listeners:
            stage, listener = entry
            if not self._fence.holds(stage, self._now_ns, getattr(listener, what), *args):
                self._listeners = tuple(other for other in self._listeners if other is not entry)
