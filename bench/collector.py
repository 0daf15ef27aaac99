"""What does the collector alone cost? `python -m bench.collector`, half a minute.

A collector process of its own on one core gets from this process what a relay would send: batches of plain requests at
1,000/s, then the reads of 100 streams at 50 events/s each, then plain requests as fast as it acknowledges them. All of
its CPU time counts: decoding, booking, log lines, commits. The replies are those of `mock_engine`.

It is the quick look before and after a change. In `bench/run.sh` the collector shares its core with the relay, finds
the caches full of that one's data, and costs more; what is published is measured there.

With `--traces` each request has a trace and becomes a span that is sent over HTTP to an endpoint that takes it: what
tracing costs is the difference. Flat out more requests end than one thread can make spans of; the rest is dropped.
"""

import argparse
import asyncio
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import uvloop
from bench import mock_engine, procs
from bench.load import PROMPT
from bench.measure import free_ports

from inferwatch import tap
from inferwatch.tap import Batch, Bye, Close, Head, Hello, Open, Read

FLUSH_S = 0.1  # tap.flush_interval_s
MAX_BATCH_REQUESTS = 120  # with bodies of 850 bytes and replies of 1.3 kB this is the relay's FLUSH_BYTES
PLAIN_PER_S = 1000
STREAMS = 100
EVENTS_PER_S = 50
EVENTS_PER_STREAM = 500
START_TIMEOUT_S = 10.0
MAX_UNACKED = 2000  # requests, in the flat-out phase
CONTINUOUS = mock_engine.StreamOptions(include_usage=True, continuous_usage_stats=True)
BODY = b'{"model":"bench","messages":[{"role":"user","content":"%b"}],"max_tokens":16,"seed":%d,"stream":%b}'
PLAIN_HEADERS = {"server": "uvicorn", "content-type": "application/json", "content-length": "1359"}
STREAM_HEADERS = {"server": "uvicorn", "content-type": "text/event-stream; charset=utf-8"}


class Relay:
    """The far end of the tap, as far as the collector can tell."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, traced: bool = False) -> None:
        self._traced = traced
        self._reader = reader
        self._writer = writer
        self._boot = secrets.token_hex(8)
        self._seq = 0
        self._number = 0
        self._unacked: dict[int, int] = {}  # batch -> requests that it closes
        self._acked = asyncio.Event()
        writer.write(tap.encode(Hello(tap.PROTOCOL_VERSION, 0, os.getpid(), self._boot)))

    async def listen(self) -> None:
        """Take acknowledgements until the collector goes."""
        frames = tap.relay_side()
        while data := await self._reader.read(4096):
            for message in frames.feed(data):
                assert isinstance(message, tap.Ack)
                self._unacked = {seq: count for seq, count in self._unacked.items() if seq > message.seq}
                self._acked.set()

    async def acknowledged(self, below: int = 1) -> None:
        """Return when fewer than `below` requests are not acknowledged."""
        while sum(self._unacked.values()) >= below:
            self._acked.clear()
            await asyncio.wait_for(self._acked.wait(), 10)

    def opened(self, *, stream: bool) -> Open:
        """The next request."""
        self._number += 1
        trace_id, span_id = (secrets.token_hex(16), secrets.token_hex(8)) if self._traced else ("", "")
        body = BODY % (PROMPT.encode(), self._number, b"true" if stream else b"false")
        return Open(
            id=self._number, request_id=f"{self._boot}{self._number:08x}", wall_ns=time.time_ns(),
            arrival_ns=time.monotonic_ns(), sent_ns=time.monotonic_ns(), method="POST", path="/v1/chat/completions",
            tenant="anonymous", model="bench", stream=stream, asked_usage=stream, choices=1,
            headers={"content-type": "application/json"}, body=body, body_bytes=len(body),
            trace_id=trace_id, span_id=span_id,
        )  # fmt: skip

    def send(self, opens: list[Open], heads: list[Head], reads: list[Read], closes: list[Close]) -> None:
        """One batch."""
        self._seq += 1
        self._unacked[self._seq] = len(closes)
        self._writer.write(tap.encode(Batch(self._seq, opens, heads, reads, closes)))

    def send_plain(self, count: int) -> None:
        """A batch of requests from beginning to end."""
        opens = [self.opened(stream=False) for _ in range(count)]
        replies = [mock_engine.PLAIN % (opened.id, mock_engine.PLAIN_TEXT) for opened in opens]
        now_ns = time.monotonic_ns()
        self.send(
            opens,
            [Head(opened.id, now_ns, 200, PLAIN_HEADERS) for opened in opens],
            [(opened.id, now_ns, reply) for opened, reply in zip(opens, replies, strict=True)],
            [_close(opened, len(reply), reply[-1024:]) for opened, reply in zip(opens, replies, strict=True)],
        )

    def leave(self) -> None:
        self._writer.write(tap.encode(Bye()))
        self._writer.close()


def _close(opened: Open, size: int, tail: bytes) -> Close:
    now_ns = time.monotonic_ns()
    return Close(
        id=opened.id, stamp_ns=now_ns, outcome="ok", error="", status=200, head_ns=now_ns, first_body_ns=now_ns,
        last_body_ns=now_ns, reads=1, response_bytes=size, tail=tail,
    )  # fmt: skip


async def plain_at_rate(relay: Relay, seconds: float) -> int:
    """Plain requests at PLAIN_PER_S, sent as a relay does: by time or by size, whatever comes first."""
    pause_s = min(FLUSH_S, MAX_BATCH_REQUESTS / PLAIN_PER_S)
    count = round(PLAIN_PER_S * pause_s)
    batches = round(seconds / pause_s)
    await _paced(batches, pause_s, lambda: relay.send_plain(count))
    return batches * count


async def plain_flat_out(relay: Relay, seconds: float) -> int:
    """As many plain requests as the collector takes."""
    end_s, sent = time.monotonic() + seconds, 0
    while time.monotonic() < end_s:
        relay.send_plain(MAX_BATCH_REQUESTS)
        sent += MAX_BATCH_REQUESTS
        await relay.acknowledged(MAX_UNACKED)
    return sent


async def streamed(relay: Relay, seconds: float) -> int:
    """The reads of STREAMS streams, one event each; a stream that ends is followed by another."""
    options = mock_engine.ChatRequest(stream=True, max_tokens=EVENTS_PER_STREAM, stream_options=CONTINUOUS)
    streams: dict[int, tuple[Open, mock_engine.Stream]] = {}
    per_batch = round(EVENTS_PER_S * FLUSH_S)
    counted = 0

    def flush() -> None:
        nonlocal counted
        opens = [relay.opened(stream=True) for _ in range(STREAMS - len(streams))]
        heads = [Head(opened.id, time.monotonic_ns(), 200, STREAM_HEADERS) for opened in opens]
        for opened in opens:
            stream = mock_engine.Stream(_nobody(), options, mock_engine.Pace(), 0)
            # The first ones begin in unlike phases, so that they do not all end in one batch.
            stream.sent = 1 if counted else 1 + opened.id % (EVENTS_PER_STREAM // 2)
            streams[opened.id] = (opened, stream)
        reads: list[Read] = []
        closes = []
        for _ in range(per_batch):
            for number, (_, stream) in list(streams.items()):
                events = stream.next_frames().split(b"\r\n")[1::2]
                reads.append((number, time.monotonic_ns(), b"".join(events)))
                if stream.sent == stream.limit:
                    closes.append(_close(streams.pop(number)[0], stream.body_bytes, b"data: [DONE]\n\n"))
        counted += len(reads)
        relay.send(opens, heads, reads, closes)

    await _paced(round(seconds / FLUSH_S), FLUSH_S, flush)
    return counted


async def _paced(count: int, pause_s: float, step: Callable[[], None]) -> None:
    start_s = time.monotonic()
    for number in range(count):
        await asyncio.sleep(start_s + number * pause_s - time.monotonic())
        step()


def _nobody() -> "mock_engine.Connection":
    return None  # type: ignore[return-value]  # a stream that is asked for its frames writes to nobody


async def measure(pid: int, socket_path: Path, seconds: float, rounds: int, *, traced: bool) -> None:
    """All phases, `rounds` times; prints microseconds of CPU for one request or event."""
    relay = Relay(*await asyncio.open_unix_connection(str(socket_path)), traced=traced)
    listening = asyncio.create_task(relay.listen())
    await plain_at_rate(relay, 1.0)  # warm-up
    for phase in (plain_at_rate, streamed, plain_flat_out):
        costs_us = []
        for _ in range(rounds):
            await relay.acknowledged()
            before_ns = procs.cpu_ns(pid)
            count = await phase(relay, seconds)
            await relay.acknowledged()
            costs_us.append((procs.cpu_ns(pid) - before_ns) / 1e3 / count)
        shown = " ".join(f"{cost:.2f}" for cost in costs_us)
        print(f"{phase.__name__:16} {statistics.median(costs_us):6.2f} us  ({shown})", flush=True)
    relay.leave()
    await listening


def _traced(folder: Path, stack: ExitStack) -> Path:
    """Start an endpoint on this process's core; returns the configuration that names it."""
    [port] = free_ports(1)
    argv = [sys.executable, "-m", "bench.otlp_endpoint", str(port), "http", "well"]
    stack.enter_context(procs.running(argv, core=min(os.sched_getaffinity(0)), log=folder / "endpoint.log"))
    path = folder / "inferwatch.yml"
    path.write_text(f"otlp: {{traces: true, endpoint: 'http://127.0.0.1:{port}'}}\n")
    return path


def main() -> None:
    """Start a collector, measure it, end it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each phase and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--traces", action="store_true", help="make a span of each request, and send it")
    options = parser.parse_args()
    ours, its = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {ours})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "tap.sock"
        argv = [sys.executable, "-m", "inferwatch_collectors", "--tap-socket", str(path), "--state-dir", str(folder)]
        argv += ["--spool-dir", str(folder / "spool"), "--admin-port", "0", "--upstream", "http://127.0.0.1:9"]
        with ExitStack() as stack:
            if options.traces:
                argv += ["--config", str(_traced(folder, stack))]
            pid = stack.enter_context(procs.running(argv, core=its, log=folder / "log"))
            deadline_s = time.monotonic() + START_TIMEOUT_S
            while not path.exists():
                if time.monotonic() > deadline_s:
                    sys.exit("the collector did not start; its log ends:\n" + (folder / "log").read_text()[-2000:])
                time.sleep(0.05)
            time.sleep(1.0)  # its start is not to be measured
            uvloop.run(measure(pid, path, options.seconds, options.rounds, traced=options.traces))


if __name__ == "__main__":
    main()
