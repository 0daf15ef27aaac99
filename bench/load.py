"""The load client: what the benchmark sends, what it counts, and what it times.

One `Load` is one target in one phase. Connections are raw protocols on uvloop with httptools, so that the client is
cheap beside what it measures. Counted for every target: SSE events and body bytes. Timed only when the engine stamps
its events (`stamped`): both sides read CLOCK_MONOTONIC, so the difference is the way through the proxy alone, free of
the engine's timer; on the path without a proxy it is the cost of the two sockets.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

import httptools

GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, spread evenly: starts that never fall into step with the pace
STAMP = b'"content":"@'  # what precedes a stamp in an event; must match mock_engine.STAMP
PROMPT = "Write down, in order, what a reader must know of a protocol before the first byte is sent. " * 8
Sample = TypeVar("Sample")


class LoadError(RuntimeError):
    """The target did not do what was asked of it: the figures of this phase are void."""


def quantile(values: list[int], q: float) -> float:
    """The q-quantile (nearest rank) of values in nanoseconds, as milliseconds; nan when there are none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] / 1e6


@dataclass(slots=True)
class Delays:
    """Nanoseconds: request to first content less what the engine held it; each event's way; what it stretched a gap."""

    first: list[int] = field(default_factory=list)
    event: list[int] = field(default_factory=list)
    gap: list[int] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """A keep-alive connection to the target; one request at a time."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.transport: asyncio.WriteTransport | None = None
        self.done: asyncio.Future[None] | None = None
        self.broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's does not derive from it

    def connection_lost(self, exc: Exception | None) -> None:
        self.broken = True
        if self.done is not None and not self.done.done():
            self.done.set_exception(LoadError(f"connection lost in the middle of a reply: {exc}"))

    def request(self, message: bytes) -> asyncio.Future[None]:
        """Send one request; the future resolves when the reply is complete."""
        assert self.transport is not None
        self.parser = httptools.HttpResponseParser(self)
        self.newline = self.started = False
        self.rest = b""
        self.previous_ns = 0
        self.done = asyncio.get_running_loop().create_future()
        self.sent_ns = time.monotonic_ns()
        self.transport.write(message)
        return self.done

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status != 200 and self.done is not None and not self.done.done():
            self.done.set_exception(LoadError(f"HTTP status {status}"))

    def on_body(self, body: bytes) -> None:
        load = self.load
        load.body_bytes += len(body)
        load.events += body.count(b"\n\n") + (self.newline and body[0] == 10)
        self.newline = body.endswith(b"\n") and not body.endswith(b"\n\n")
        if not self.started:
            self.started = True
            load.started += 1
        if load.kept is not None:
            load.kept += body
        if load.delays is not None:
            self._time(body, load.delays)

    def _time(self, body: bytes, delays: Delays) -> None:
        now_ns = time.monotonic_ns()
        body = self.rest + body
        at = body.find(STAMP)
        while at >= 0:
            at += len(STAMP)
            if len(body) < at + 32:
                break  # split inside a stamp; the rest comes with the next read
            delay_ns = now_ns - int(body[at : at + 19])
            delays.event.append(delay_ns)
            if self.previous_ns:
                delays.gap.append(abs(delay_ns - self.previous_ns))
            else:
                delays.first.append(now_ns - self.sent_ns - int(body[at + 20 : at + 32]))
            self.previous_ns = delay_ns
            body = body[at + 32 :]
            at = body.find(STAMP)
        self.rest = body[-64:]

    def on_message_complete(self) -> None:
        self.load.completed += 1
        if not self.parser.should_keep_alive():
            self.broken = True
        if self.done is not None and not self.done.done():
            self.done.set_result(None)


class Load:
    """Requests to one port, with the counts of all that came back."""

    def __init__(self, port: int, *, stamped: bool = False, keep: bool = False) -> None:
        self.port = port
        self.events = 0  # ended by an empty line
        self.body_bytes = 0
        self.started = 0  # replies of which some body has arrived
        self.completed = 0
        self.late_s = 0.0  # the most that an arrival was behind its schedule: the load client's own fault
        self.delays = Delays() if stamped else None
        self.kept: bytearray | None = bytearray() if keep else None
        self._idle: list[Connection] = []
        self._open: list[Connection] = []
        self._seeds = itertools.count(1)

    def message(self, path: str, body: bytes) -> bytes:
        """A POST request as the OpenAI client would send it."""
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\nauthorization: Bearer sk-bench-0123456789\r\n"
            f"user-agent: OpenAI/Python 2.54.0\r\naccept: application/json\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def chat(self, *, stream: bool, max_tokens: int = 156) -> bytes:
        """A chat completion request of about 1 kB."""
        body = (
            f'{{"model":"bench","messages":[{{"role":"user","content":"{PROMPT}"}}],"max_tokens":{max_tokens},'
            f'"seed":{next(self._seeds)},"stream":{"true" if stream else "false"}}}'
        )
        return self.message("/v1/chat/completions", body.encode())

    async def exchange(self, message: bytes) -> None:
        """Send one request on an idle or a new connection and wait for the end of the reply."""
        connection = await self._connection()
        await connection.request(message)
        self._idle.append(connection)

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.broken:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.port)
        self._open.append(connection)
        return connection

    def close(self) -> None:
        """Drop all connections, idle or not."""
        for connection in self._open:
            connection.done = None
            if connection.transport is not None:
                connection.transport.abort()


@dataclass(frozen=True, slots=True)
class Window(Generic[Sample]):
    """What happened between two moments: how much the load client counted, and what the caller sampled at both."""

    count: int
    seconds: float
    before: Sample
    after: Sample


async def steady_streams(
    load: Load, streams: int, events_per_s: float, *, ramp_s: float, window_s: float, sample: Callable[[], Sample]
) -> Window[Sample]:
    """Open `streams` streams, let them all flow, take a window of them, and see each one to its end.

    Raises LoadError when the target is so slow that streams end inside the window.
    """
    settle_s = 0.5
    # Room for a slow target to get all streams going before the first one ends.
    max_tokens = round((2 * ramp_s + settle_s + window_s + 1.0) * events_per_s)
    async with asyncio.timeout(4 * (ramp_s + window_s) + 30), asyncio.TaskGroup() as group:
        for index in range(streams):
            delay_s = ramp_s * (index * GOLDEN % 1.0)
            group.create_task(_later(delay_s, lambda: load.exchange(load.chat(stream=True, max_tokens=max_tokens))))
        while load.started < streams:
            await asyncio.sleep(0.02)
        await asyncio.sleep(settle_s)
        before, count, began_s = sample(), load.events, time.monotonic()
        await asyncio.sleep(window_s)
        after, ended_s = sample(), time.monotonic()
        window = Window(load.events - count, ended_s - began_s, before, after)
        if load.completed:
            raise LoadError("streams ended inside the window of measurement: the target cannot carry this load")
    return window


async def arrivals(load: Load, per_s: float, seconds: float, message: Callable[[], bytes]) -> None:
    """Send requests at a fixed rate whatever the replies do (open loop), then wait for the last reply."""
    began_s = asyncio.get_running_loop().time()
    async with asyncio.timeout(seconds + 60), asyncio.TaskGroup() as group:
        for index in range(round(per_s * seconds)):
            delay_s = began_s + index / per_s - asyncio.get_running_loop().time()
            load.late_s = max(load.late_s, -delay_s)
            if delay_s > 0.001:
                await asyncio.sleep(delay_s)
            group.create_task(load.exchange(message()))


async def plain_at_rate(load: Load, per_s: float, *, window_s: float, sample: Callable[[], Sample]) -> Window[Sample]:
    """Plain requests at a fixed rate on kept-alive connections; the window opens after the first half second."""
    async with asyncio.TaskGroup() as group:
        group.create_task(arrivals(load, per_s, window_s + 1.0, lambda: load.chat(stream=False)))
        await asyncio.sleep(0.5)
        before, count, began_s = sample(), load.completed, time.monotonic()
        await asyncio.sleep(window_s)
        return Window(load.completed - count, time.monotonic() - began_s, before, sample())


async def plain_one_by_one(load: Load, count: int) -> float:
    """Median milliseconds of plain requests sent one after the other on one connection."""
    times_s = []
    async with asyncio.timeout(count * 1.0 + 30):
        for _ in range(count):
            began_s = time.perf_counter()
            await load.exchange(load.chat(stream=False))
            times_s.append(time.perf_counter() - began_s)
    return statistics.median(times_s) * 1e3


async def open_streams(load: Load, streams: int, *, ramp_s: float, sample: Callable[[], Sample]) -> Sample:
    """Hold `streams` streams open until each has sent something, sample, and drop them all."""
    exchanges = [
        _later(ramp_s * index / streams, lambda: load.exchange(load.chat(stream=True, max_tokens=100_000)))
        for index in range(streams)
    ]
    async with asyncio.timeout(ramp_s * 4 + 60):
        tasks = [asyncio.create_task(exchange) for exchange in exchanges]
        try:
            while load.started < streams:
                if any(task.done() for task in tasks):
                    raise LoadError("a stream ended that was to stay open")
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)  # buffers of the last ones
            return sample()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            load.close()


async def _later(delay_s: float, start: Callable[[], Coroutine[None, None, None]]) -> None:
    await asyncio.sleep(delay_s)
    await start()
