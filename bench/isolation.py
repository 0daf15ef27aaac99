"""Does a large prompt that the collector digests move other people's tokens? `python -m bench.isolation`

Fifty streams at fifty events a second run through Inferwatch; what is measured is the gap between two events of a
stream as its client sees it. Three phases, in turn, several rounds:

* `quiet`: nothing else;
* `digested`: besides, plain requests with a 200 kB prompt each, mirrored to the collector and digested there;
* `not mirrored`: the same requests, but with `tap.max_body_bytes: 0`, so that the collector never sees the prompts.

`digested` against `not mirrored` is the collector's influence; `not mirrored` against `quiet` is what it costs anyway
to pass 200 kB through the relay and the engine.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator

import uvloop
from bench.load import quantile

STREAMS = 50
EVENTS_PER_S = 50
PROMPTS_PER_S = 5
PROMPT_BYTES = 200_000
SECONDS = 6.0
ROUNDS = 3
ENGINE_PORT, DATA_PORT, ADMIN_PORT = 18931, 18932, 18933
PHASES = ("quiet", "digested", "not mirrored")


def request(body: dict[str, object]) -> bytes:
    """A chat request on a keep-alive connection."""
    payload = json.dumps({"model": "bench", **body}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload


class Stream(asyncio.Protocol):
    """One stream; notes the gap between reads that carry an event."""

    def __init__(self, gaps_ns: list[int]) -> None:
        self._gaps_ns = gaps_ns
        self._last_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert hasattr(transport, "write")
        transport.write(request({"messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 10**6}))

    def data_received(self, data: bytes) -> None:
        now_ns = time.perf_counter_ns()
        if self._last_ns and b"\n\n" in data:
            self._gaps_ns.append(now_ns - self._last_ns)
        self._last_ns = now_ns


async def prompts(count: int) -> None:
    """Send large plain requests, evenly spaced."""
    words = "Summarise what follows, name the people in it, and say what they want. " * (PROMPT_BYTES // 72)
    message = request({"messages": [{"role": "user", "content": words}], "max_tokens": 5})
    reader, writer = await asyncio.open_connection("127.0.0.1", DATA_PORT, limit=1 << 20)
    for _ in range(count):
        started_s = time.perf_counter()
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        await asyncio.sleep(max(0.0, 1 / PROMPTS_PER_S - (time.perf_counter() - started_s)))
    writer.close()


async def phase(name: str) -> list[int]:
    """Return the gaps of one phase, in nanoseconds."""
    gaps_ns: list[int] = []
    loop = asyncio.get_running_loop()
    transports = []
    for _ in range(STREAMS):
        transport, _protocol = await loop.create_connection(lambda: Stream(gaps_ns), "127.0.0.1", DATA_PORT)
        transports.append(transport)
        await asyncio.sleep(1 / EVENTS_PER_S / STREAMS)
    await asyncio.sleep(0.5)
    gaps_ns.clear()
    if name == "quiet":
        await asyncio.sleep(SECONDS)
    else:
        await prompts(int(SECONDS * PROMPTS_PER_S))
    for transport in transports:
        transport.close()
    return gaps_ns


@contextlib.contextmanager
def running(name: str) -> Iterator[None]:
    """Start engine and Inferwatch as `name` needs them."""
    with tempfile.TemporaryDirectory() as state_dir, contextlib.ExitStack() as stack:
        for arguments in (
            ("bench.mock_engine", str(ENGINE_PORT)),
            (
                *("inferwatch", "serve", "--upstream", f"http://127.0.0.1:{ENGINE_PORT}", "--engine", "vllm"),
                *("--listen", f"127.0.0.1:{DATA_PORT}", "--admin", f"127.0.0.1:{ADMIN_PORT}"),
                *("--state-dir", state_dir, "--log-level", "error"),
            ),
        ):
            environ = dict(os.environ)
            if name == "not mirrored":
                environ["INFERWATCH__TAP__MAX_BODY_BYTES"] = "0"
            process = subprocess.Popen([sys.executable, "-m", *arguments], env=environ, stdout=subprocess.DEVNULL)
            stack.callback(process.wait, 20)
            stack.callback(process.send_signal, signal.SIGTERM)
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{ADMIN_PORT}/readyz"):
                break
            time.sleep(0.1)
        yield


def main() -> None:
    """Run and print one table."""
    rounds: dict[str, list[list[int]]] = {name: [] for name in PHASES}
    for number in range(ROUNDS):
        for name in PHASES:
            with running(name):
                rounds[name].append(uvloop.run(phase(name)))
            print(f"round {number + 1} of {ROUNDS}: {name}", file=sys.stderr, flush=True)
    print("| phase | gaps | p50, ms | p99, ms | p99 by round, ms |\n|---|---|---|---|---|")
    for name in PHASES:
        every = [gap for gaps in rounds[name] for gap in gaps]
        by_round = " ".join(f"{quantile(gaps, 0.99):.2f}" for gaps in rounds[name])
        print(f"| {name} | {len(every):,} | {quantile(every, 0.5):.2f} | {quantile(every, 0.99):.2f} | {by_round} |")


if __name__ == "__main__":
    main()
