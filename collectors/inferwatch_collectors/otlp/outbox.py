"""A bounded queue and the thread that empties it: whatever the other side does, the loop only ever appends.

The thread may hang for as long as the exporter's time-out lets it, ten seconds unless OTEL_EXPORTER_OTLP_TIMEOUT says
otherwise. Meanwhile the queue fills, and what does not fit is dropped and counted. What an exporter could not deliver
in its time is counted as failed and gone: spans of an outage are worth less than room for those after it.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

_log: Final = logging.getLogger(__name__)

# An exporter that is down is down for every batch: one line a minute says as much.
LOG_INTERVAL_S: Final = 60.0

T = TypeVar("T")


class Outbox(Generic[T]):
    """Takes items, hands them to `send` in batches. `put` never blocks."""

    def __init__(
        self,
        name: str,
        send: Callable[[list[T]], bool],
        *,
        max_items: int,
        batch_items: int,
        delay_s: float,
        max_bytes: int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`send` runs in the thread and tells whether the batch was delivered; a batch waits for `delay_s` at most."""
        self._name = name
        self._send = send
        self._max_items = max_items
        self._batch_items = min(batch_items, max_items)
        self._delay_s = delay_s
        self._max_bytes = max_bytes
        self._clock_s = clock_s
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._wake = threading.Condition()
        self._closing = False
        self._logged_s = -LOG_INTERVAL_S
        self.exported = 0
        self.failed = 0
        self.dropped = 0
        # A daemon: an endpoint that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._items)

    def put(self, item: T, size: int) -> bool:
        """Queue an item of `size` bytes; False if there is no room for it."""
        with self._wake:
            if self._closing or len(self._items) >= self._max_items or self._bytes + size > self._max_bytes:
                self.dropped += 1
                return False
            self._items.append((item, size))
            self._bytes += size
            # A thread that is woken for each item takes the interpreter's lock as often.
            if len(self._items) == 1 or len(self._items) == self._batch_items:
                self._wake.notify()
        return True

    def close(self, timeout_s: float) -> None:
        """Send what waits, for so long at most. Blocks: not for the event loop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            if self._delivered(batch):
                self.exported += len(batch)
            else:
                self.failed += len(batch)

    def _next(self) -> list[T] | None:
        """Wait for a batch; None at the end."""
        with self._wake:
            while not self._items:
                if self._closing:
                    return None
                self._wake.wait()
            due_s = self._clock_s() + self._delay_s
            while len(self._items) < self._batch_items and not self._closing:
                left_s = due_s - self._clock_s()
                if left_s <= 0:
                    break
                self._wake.wait(left_s)
            taken = [self._items.popleft() for _ in range(min(len(self._items), self._batch_items))]
            self._bytes -= sum(size for _, size in taken)
        return [item for item, _ in taken]

    def _delivered(self, batch: list[T]) -> bool:
        try:
            delivered = self._send(batch)
            reason = "not delivered"
        except Exception as error:  # noqa: BLE001 - the fence of this thread: it must live as long as the process
            delivered, reason = False, type(error).__name__
        if not delivered and self._clock_s() - self._logged_s >= LOG_INTERVAL_S:
            self._logged_s = self._clock_s()
            _log.warning("export_failed signal=%s items=%d reason=%s", self._name, len(batch), reason)
        return delivered
