"""Who listens to a request, behind a fence: a fault of one costs what it would have heard, and nothing else."""

from collections.abc import Sequence
from typing import Final, Protocol

from inferwatch.record import RequestRecord
from inferwatch.tap import Open
from inferwatch_collectors.dialects.base import Dialect
from inferwatch_collectors.dialects.content import Listener
from inferwatch_collectors.fence import Fence


class Audience(Protocol):
    """Chooses what to listen to."""

    def opened(self, opened: Open, dialect: Dialect) -> Listener | None:
        """A request began; its body is there if it was mirrored, and `dialect.prompt` reads it. None: not this one."""


class Audiences:
    """All that may listen, each with the stage under which its faults are counted."""

    def __init__(self, audiences: Sequence[tuple[str, Audience]], fence: Fence) -> None:
        self._audiences: Final = tuple(audiences)
        self._fence = fence

    def opened(self, opened: Open, dialect: Dialect) -> Listener | None:
        """Return who listens to this request, None if nobody does."""
        listeners: list[tuple[str, Listener]] = []
        for stage, audience in self._audiences:
            listener = self._fence.run(stage, opened.arrival_ns, audience.opened, opened, dialect)
            if listener is not None:
                listeners.append((stage, listener))
        return _Fenced(tuple(listeners), self._fence, opened.arrival_ns) if listeners else None


class _Fenced:
    """Those who listen to one request. After a fault one hears no more of it."""

    __slots__ = ("_fence", "_listeners", "_now_ns")

    def __init__(self, listeners: tuple[tuple[str, Listener], ...], fence: Fence, now_ns: int) -> None:
        self._listeners = listeners
        self._fence = fence
        self._now_ns = now_ns  # of the last text: only for how often faults are logged

    def text(self, stamp_ns: int, choice: int, classes: int, text: str) -> None:
        """Tell all."""
        self._now_ns = max(self._now_ns, stamp_ns)
        self._tell("text", stamp_ns, choice, classes, text)

    def missing(self) -> None:
        """Tell all."""
        self._tell("missing")

    def closed(self, record: RequestRecord) -> None:
        """Tell all."""
        self._tell("closed", record)

    def _tell(self, what: str, *args: object) -> None:
        for entry in self._listeners:
            stage, listener = entry
            faults = self._fence.faults
            self._fence.run(stage, self._now_ns, getattr(listener, what), *args)
            if self._fence.faults != faults:
                self._listeners = tuple(other for other in self._listeners if other is not entry)
