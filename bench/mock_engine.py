"""The engine of the comparison: vLLM-shaped replies at a fixed pace, for as little CPU as possible.

Run as `python -m bench.mock_engine PORT`. One calendar on one timer drives all streams, so that two thousand open
streams cost no timer each. Its grid is fine enough that streams in even phases send one by one: a proxy is then woken
for each event, which is what costs it most. Bursts of many streams at once would be cheaper per event for everybody.
Every SSE event is one HTTP chunk, as uvicorn sends it. Every reply is a function of the request alone (but for stamps),
so that two replies to one request can be compared byte by byte.

Clients of the benchmark never ask for usage. A proxy that asks on its own account (`stream_options`) gets it in the
places vLLM puts it, and must take it out again: `Totals` counts what the client should see, without it.

Control, for the load client only and never through a contender:
  POST /bench/pace    `{"events_per_s": float, "first_s": float, "stamped": bool}` for streams that start later
  POST /bench/totals  the totals since the last call, as JSON; resets them
"""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import cast

import msgspec
import uvloop
from httptools import HttpRequestParser

TICK_NS = 100_000  # half the time between two events of 100 streams at 50/s
PROMPT_TOKENS = 11
# Odd and even lengths: byte totals that agree by chance are then unlikely.
TOKENS = (b" the", b" clauses", b"DATA", b" end", b" of", b" a", b" protocol", b",", b" streams", b" in", b" order")
PLAIN_TEXT = b"".join(TOKENS) * 13  # makes the plain reply about 1 kB long
PLAIN_TOKENS = 156

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
JSON_HEAD = b"HTTP/1.1 %d %b\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
EVENT_HEAD = (
    b'data: {"id":"chatcmpl-%032x","object":"chat.completion.chunk","created":1795226103,"model":"bench",'
    b'"choices":[{"index":0,"delta":{'
)
ROLE_TAIL = b'"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
ROLE_END = b',"prompt_token_ids":null,"prompt_text":null}\n\n'
DELTA_TAIL = b'"},"logprobs":null,"finish_reason":null,"token_ids":null}]'
LAST_TAIL = b'"},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}]'
FINGERPRINT = b',"system_fingerprint":"vllm-0.32.0-387579e8"'  # on the finish event, or with usage on the one behind it
FINAL_USAGE = (
    b'data: {"id":"chatcmpl-%032x","object":"chat.completion.chunk","created":1795226103,"model":"bench",'
    b'"choices":[]%b%b}\n\n'
)
USAGE = b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}'
DONE = b"data: [DONE]\n\n"
PLAIN = (
    b'{"id":"chatcmpl-%032x","object":"chat.completion","created":1795226103,"model":"bench","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"%b","refusal":null,"annotations":null,"audio":null,"function_call":null,'
    b'"tool_calls":[],"reasoning":null},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}],'
    b'"service_tier":null,"system_fingerprint":"vllm-0.32.0-387579e8","usage":{"prompt_tokens":11,"total_tokens":167,'
    b'"completion_tokens":156,"prompt_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,'
    b'"kv_transfer_params":null}'
)
# What a content event carries when stamped: when the engine wrote it, and how long it had held the request by then.
STAMP = b"@%019d.%012d"


class StreamOptions(msgspec.Struct):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class ChatRequest(msgspec.Struct):
    """The part of a chat completion request that the reply depends on."""

    stream: bool | None = False
    max_tokens: int = 16
    seed: int = 0
    stream_options: StreamOptions | None = None


class Pace(msgspec.Struct):
    """How fast streams run: events per second, seconds from request to first event, time stamps as content.

    And how long answers are, of which each event is a token, and how long plain ones take.
    """

    events_per_s: float = 50.0
    first_s: float = 0.05
    stamped: bool = False
    stream_tokens: int = 0  # 0: as many as the request's max_tokens
    plain_s: float = 0.0


class Totals(msgspec.Struct):
    """What clients should have seen: SSE events and body bytes of finished streams, and plain replies.

    And what was generated: tokens of all requests, also of streams that were hung up on.
    """

    streams: int = 0
    events: int = 0
    stream_bytes: int = 0
    replies: int = 0
    reply_bytes: int = 0
    requests: int = 0
    tokens: int = 0


class Stream:
    """One streamed reply: what is left to send, and what the client should have got so far."""

    def __init__(self, connection: "Connection", request: ChatRequest, pace: Pace, arrived_ns: int) -> None:
        self.connection = connection
        self.seed = request.seed
        self.limit = pace.stream_tokens or request.max_tokens
        self.options = request.stream_options
        self.interval_ticks = max(1, round(1e9 / pace.events_per_s / TICK_NS))
        self.stamped = pace.stamped
        self.arrived_ns = arrived_ns
        self.head = EVENT_HEAD % request.seed
        self.sent = 0
        self.body_bytes = 0

    def next_frames(self) -> bytes:
        """The HTTP chunks of the next event; the first comes with the role chunk before it, as in vLLM."""
        frames = self._role_frame() if self.sent == 0 else b""
        if self.stamped:
            now_ns = time.monotonic_ns()
            text = STAMP % (now_ns, now_ns - self.arrived_ns)
        else:
            text = TOKENS[self.sent % len(TOKENS)]
        self.sent += 1
        if self.sent < self.limit:
            return frames + self._frame(self.head + b'"content":"' + text + DELTA_TAIL, b"}\n\n")
        last = self._frame(self.head + b'"content":"' + text + LAST_TAIL, b"}\n\n", FINGERPRINT)
        return frames + last + self._end_frames()

    def _role_frame(self) -> bytes:
        return self._frame(self.head + ROLE_TAIL, ROLE_END)

    def _frame(self, event: bytes, end: bytes, fingerprint: bytes = b"") -> bytes:
        """`fingerprint`: what stands in the place of the usage without one."""
        self.body_bytes += len(event) + len(fingerprint) + len(end)
        if self.options is not None and self.options.continuous_usage_stats:
            event += self._usage()
        else:
            event += fingerprint
        return b"%x\r\n%b%b\r\n" % (len(event) + len(end), event, end)

    def _usage(self) -> bytes:
        return USAGE % (PROMPT_TOKENS, PROMPT_TOKENS + self.sent, self.sent)

    def _end_frames(self) -> bytes:
        frames = b""
        if self.options is not None and self.options.include_usage:
            event = FINAL_USAGE % (self.seed, self._usage(), FINGERPRINT)
            frames = b"%x\r\n%b\r\n" % (len(event), event)
        self.body_bytes += len(DONE)
        return frames + b"%x\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE)


class IntervalTimer:
    """A Linux timerfd on the running loop, whose own timers know only milliseconds. (`os.timerfd_*` needs 3.13.)"""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        asyncio.get_running_loop().add_reader(self._fd, self._fire)

    def start(self, interval_ns: int) -> None:
        """Call back every so many nanoseconds (less than a second)."""
        setting = (ctypes.c_long * 4)(0, interval_ns, 0, interval_ns)  # struct itimerspec: interval, first
        if self._libc.timerfd_settime(self._fd, 0, setting, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def stop(self) -> None:
        self.start(0)

    def _fire(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # stopped between the wake-up and the read
            return
        self._callback()


class Engine:
    """The calendar of due streams, the pace, the totals."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.totals = Totals()
        self.timer = IntervalTimer(self._tick)
        self.calendar: dict[int, list[Stream]] = {}
        self.open_streams = 0
        self.last_tick = 0
        self.ticking = False

    def open(self, stream: Stream) -> None:
        self.open_streams += 1
        # Rounded up: an event may be late by less than a tick, never early.
        due_tick = -(-(stream.arrived_ns + round(self.pace.first_s * 1e9)) // TICK_NS)
        if not self.ticking:
            self.ticking = True
            self.last_tick = time.monotonic_ns() // TICK_NS
            self.timer.start(TICK_NS)
        self.calendar.setdefault(max(due_tick, self.last_tick + 1), []).append(stream)

    def _tick(self) -> None:
        now_tick = time.monotonic_ns() // TICK_NS
        for tick in range(self.last_tick + 1, now_tick + 1):
            for stream in self.calendar.pop(tick, ()):
                self._emit(stream, tick)
        self.last_tick = now_tick
        if self.open_streams == 0:
            self.ticking = False
            self.timer.stop()

    def _emit(self, stream: Stream, tick: int) -> None:
        if stream.connection.stream is not stream:
            self.open_streams -= 1  # the client has gone
            self._count(stream.sent)
            return
        stream.connection.write(stream.next_frames())
        if stream.sent < stream.limit:
            self.calendar.setdefault(tick + stream.interval_ticks, []).append(stream)
            return
        self.open_streams -= 1
        self.totals.streams += 1
        self.totals.events += stream.limit + 2  # role chunk and [DONE]
        self.totals.stream_bytes += stream.body_bytes
        self._count(stream.sent)
        stream.connection.finished()

    def _count(self, tokens: int) -> None:
        self.totals.requests += 1
        self.totals.tokens += tokens

    def answer(self, connection: "Connection", body: bytes) -> None:
        """Send a plain reply when it is due."""
        if self.pace.plain_s:
            asyncio.get_running_loop().call_later(self.pace.plain_s, self._answer, connection, body)
        else:
            self._answer(connection, body)

    def _answer(self, connection: "Connection", body: bytes) -> None:
        self.totals.replies += 1
        self.totals.reply_bytes += len(body)
        self._count(PLAIN_TOKENS)
        connection.reply(body)


class Connection(asyncio.Protocol):
    """One connection from a proxy or from the load client: a request at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.transport: asyncio.WriteTransport | None = None
        self.parser = HttpRequestParser(self)
        self.stream: Stream | None = None
        self.path = b""
        self.body = b""
        self.arrived_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's does not derive from it
        self.write: Callable[[bytes], None] = self.transport.write

    def connection_lost(self, exc: Exception | None) -> None:
        self.stream = None

    def data_received(self, data: bytes) -> None:
        self.arrived_ns = time.monotonic_ns()
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.path, self.body = b"", b""

    def on_url(self, url: bytes) -> None:
        self.path += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        match self.path:
            case b"/v1/chat/completions":
                self._chat(msgspec.json.decode(self.body, type=ChatRequest))
            case b"/bench/pace":
                self.engine.pace = msgspec.json.decode(self.body, type=Pace)
                self.reply(b"{}")
            case b"/bench/totals":
                totals, self.engine.totals = self.engine.totals, Totals()
                self.reply(msgspec.json.encode(totals))
            case b"/health" | b"/ping":
                self.reply(b"{}")
            case b"/v1/models":
                self.reply(b'{"object":"list","data":[{"id":"bench","object":"model","owned_by":"vllm"}]}')
            case _:
                self.reply(b'{"detail":"Not Found"}', 404, b"Not Found")

    def _chat(self, request: ChatRequest) -> None:
        if request.stream:
            self.write(STREAM_HEAD)
            self.stream = Stream(self, request, self.engine.pace, self.arrived_ns)
            self.engine.open(self.stream)
            return
        self.engine.answer(self, PLAIN % (request.seed, PLAIN_TEXT))

    def reply(self, body: bytes, status: int = 200, reason: bytes = b"OK") -> None:
        self.write(JSON_HEAD % (status, reason, len(body)) + body)
        self.finished()

    def finished(self) -> None:
        self.stream = None
        if self.transport is not None and not self.parser.should_keep_alive():
            self.transport.close()


async def serve(port: int) -> None:
    """Serve on loopback until killed."""
    engine = Engine()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(engine), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
