"""Where the events of a stream go: the connection, framed for HTTP, and the faulty kinds of it.

Events are written straight to the transport, one write per flush, each event its own HTTP chunk as uvicorn makes them.
aiohttp writes the response head before and the last chunk after; nothing is written through it in between, which
saves a task wake-up and two calls per event.
"""

import asyncio
import socket
import struct
from collections.abc import Sequence

from inferwatch_simulator.faults import FaultPlan
from inferwatch_simulator.personas.vllm_events import DONE, KEEP_ALIVE

# Above this many unsent bytes tokens are held back and merged into later chunks, as an engine's output queue does.
_CONGESTED_BYTES = 65_536
_PAUSE_S = 0.02  # long enough that what was written before has left as a packet of its own, and was read


class Sink:
    """A stream's way to the client."""

    def __init__(self, transport: asyncio.Transport, *, chunked: bool) -> None:
        self._transport = transport
        self._chunked = chunked
        self._loop = asyncio.get_running_loop()
        self.last_send_s = self._loop.time()

    @property
    def congested(self) -> bool:
        """The client reads more slowly than the engine writes."""
        return self._transport.get_write_buffer_size() > _CONGESTED_BYTES

    def send(self, events: list[bytes]) -> None:
        """Write events, all at once."""
        if self._transport.is_closing():
            return
        self.last_send_s = self._loop.time()
        self._transport.write(self._framed(events))

    def _framed(self, events: list[bytes]) -> bytes:
        if not self._chunked:
            return b"".join(events)
        if len(events) == 1:
            return b"%x\r\n%b\r\n" % (len(events[0]), events[0])
        return b"".join([b"%x\r\n%b\r\n" % (len(event), event) for event in events])

    async def finish(self, done: asyncio.Future[None]) -> None:
        """Wait until the last event has been handed to the connection."""
        await done


class FaultySink(Sink):
    """A sink that goes wrong as told. One fault that ends or holds the stream takes effect, the first to be reached."""

    def __init__(
        self, transport: asyncio.Transport, plan: FaultPlan, failure: Sequence[bytes], *, chunked: bool
    ) -> None:
        super().__init__(transport, chunked=chunked)
        self._plan = plan
        self._failure = list(failure)
        self._sent = 0
        self._queue: list[bytes] = []  # bounded by the length of one answer
        self._held = False
        self._over = False  # nothing is sent any more
        self._comments = plan.get("comments") or 0
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._arrived = asyncio.Event()  # something was given to send
        self._flowing = asyncio.Event()  # not held, not over
        self._flowing.set()

    def send(self, events: list[bytes]) -> None:
        self._queue += [KEEP_ALIVE] * self._comments
        self._comments = 0
        self._queue += [event for event in events if event != DONE or "no_done" not in self._plan]
        self._arrived.set()
        if not self._held and "one_byte_writes" not in self._plan:
            self._work_off()

    def _work_off(self) -> None:
        while self._queue and not self._over and not self._held:
            event = self._queue.pop(0)
            if event == KEEP_ALIVE or not self._goes_wrong(event):
                super().send([event])
                self._sent += event != KEEP_ALIVE
                self._add_big_event(event)

    def _add_big_event(self, event: bytes) -> None:
        size = self._plan.get("big_event")
        if size is not None and self._sent == 1 and event.startswith(b"data: {"):
            super().send([big_event(event, size)])

    def _goes_wrong(self, event: bytes) -> bool:
        """Whether it is this event's turn to fail; what has to be sent of it is sent."""
        due = next((name for name in _AT_EVENT if self._plan.get(name) == self._sent), None)
        match due:
            case None:
                return False
            case "error_event":
                super().send(self._failure)
                self._failed.set_result(None)
            case "hang_mid_stream":
                pass
            case "reset_mid_stream":
                self._loop.call_later(_PAUSE_S, reset, self._transport)
            case "reset_mid_event":
                framed = self._framed([event])
                self._transport.write(framed[: len(framed) // 2])
                self._loop.call_later(_PAUSE_S, reset, self._transport)
            case "cut_utf8":
                super().send([_cut_in_character(event)[0]])
                self._loop.call_later(_PAUSE_S, self._transport.close)
            case _:
                head, tail = _cut_in_character(event)
                super().send([head])
                self._held = True
                self._flowing.clear()
                self._sent += 1
                self._loop.call_later(_PAUSE_S, self._go_on, tail)
                return True
        self._over = True
        self._flowing.clear()
        return True

    def _go_on(self, tail: bytes) -> None:
        self._held = False
        self._flowing.set()
        super().send([tail])
        self._work_off()

    async def finish(self, done: asyncio.Future[None]) -> None:
        """Returns when the response should end: done and all sent, or failed as told. A hung stream never returns."""
        if "one_byte_writes" in self._plan:
            await self._dribble(done)
            return
        await asyncio.wait({done, self._failed}, return_when=asyncio.FIRST_COMPLETED)
        if not self._failed.done():
            await self._flowing.wait()

    async def _dribble(self, done: asyncio.Future[None]) -> None:
        while self._queue or not done.done():
            self._arrived.clear()
            while self._queue:
                for byte in self._queue.pop(0):
                    super().send([bytes([byte])])
                    await asyncio.sleep(0)  # the loop writes out between two turns: each byte is a packet
            if not done.done():
                await self._arrived.wait()


# In order of precedence, should two be due at the same event.
_AT_EVENT = ("error_event", "hang_mid_stream", "reset_mid_stream", "reset_mid_event", "cut_utf8", "split_utf8")
_TEXT_KEYS = (b'"content":"', b'"text":"', b'"reasoning":"', b'"arguments":"')
_ROCKET = "🚀".encode()


def _cut_in_character(event: bytes) -> tuple[bytes, bytes]:
    """The event with an emoji at the beginning of its text (or its data), in two parts that meet inside the emoji."""
    at = next((found + len(key) for key in _TEXT_KEYS if (found := event.find(key)) >= 0), len(b"data: "))
    whole = event[:at] + _ROCKET + event[at:]
    return whole[: at + 2], whole[at + 2 :]


def big_event(event: bytes, size: int) -> bytes:
    """An event like this one with log-probabilities that make it about `size` bytes long."""
    entry = b'{"token":"a","logprob":-1.5,"bytes":[97],"top_logprobs":[]}'
    filling = b",".join([entry] * max(1, (size - len(event)) // (len(entry) + 1)))
    if b'"logprobs":null' not in event:
        event = event.replace(b'"choices":[{', b'"choices":[{"logprobs":null,', 1)
    return event.replace(b'"logprobs":null', b'"logprobs":{"content":[' + filling + b"]}", 1)


def reset(transport: asyncio.Transport) -> None:
    """Close the connection with RST instead of FIN. What the peer has not been sent is lost."""
    connection = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
