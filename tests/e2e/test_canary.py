"""Promise 5: 2,000 requests carry forty kinds of personal data wherever a request can; no sink has a byte of it.

The sinks: metrics, traces, metrics and logs by OTLP, stdout and stderr with what crashes write there, the ledger with its
journals, the spool, the whole state folder, the admin port's pages, and the live page's frames. Content is kept, as `hashed`, so that there is something to hide it from.
"""

import asyncio
import base64
import contextlib
import json
import os
import signal
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import planted
import pytest
from otlp_receiver import Received, http_receiver
from stack import MODEL, Stack, status, wait_until

REQUESTS: Final = 2000
CRASHING: Final = range(10_000, 10_160)
SPOOLED: Final = range(20_000, 20_240)
AT_ONCE: Final = 32
PAGES: Final = (
    *("/metrics", "/config", "/readyz", "/version", "/", "/usage", "/drift"),
    *("/live/frame", "/live/history", "/live/streams"),
)
COLLECTOR: Final = "inferwatch_collectors"
RELAY: Final = "inferwatch.relay"
KEYS: Final = Path(__file__).parents[1] / "testdata/config/privacy.keys"


def chat(text: str, **changes: Any) -> bytes:
    body = {"model": MODEL, "max_tokens": 4, "messages": [{"role": "user", "content": text}]}
    return json.dumps(body | changes).encode()


def tool_call(text: str) -> list[dict[str, Any]]:
    arguments = json.dumps({"note": text})
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
    return [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": text},
    ]


def header(value: str) -> str:
    return "".join(char if " " <= char <= "~" else " " for char in value)


# place -> (body, headers, path) of a request that has `text` (a sentence) or `value` there
PLACES: Final[dict[str, Any]] = {
    "prompt": lambda value, text: (chat(text), {}, ""),
    "stream": lambda value, text: (chat(text, stream=True), {}, ""),
    "aborted stream": lambda value, text: (chat(text, stream=True, max_tokens=400), {}, ""),
    "system": lambda value, text: (chat("hi", messages=[{"role": "system", "content": text}]), {}, ""),
    "parts": lambda value, text: (chat("", messages=[{"role": "user", "content": [{"type": "text", "text": text}]}]), {}, ""),
    "tool call": lambda value, text: (chat("", messages=tool_call(text)), {}, ""),
    "stop": lambda value, text: (chat("hi", stop=[value]), {}, ""),
    "user": lambda value, text: (chat("hi", user=value), {}, ""),
    "name": lambda value, text: (chat("", messages=[{"role": "user", "name": value, "content": "hi"}]), {}, ""),
    "metadata": lambda value, text: (chat("hi", metadata={"customer": value}), {}, ""),
    "escaped": lambda value, text: (chat(text).replace(b"@", b"\\u0040"), {}, ""),
    "base64": lambda value, text: (chat(base64.b64encode(text.encode()).decode()), {}, ""),
    "query": lambda value, text: (chat("hi"), {}, "?q=" + quote(value, safe="")),
    "key": lambda value, text: (chat("hi"), {"authorization": f"Bearer {header(value)}"}, ""),
    "our headers": lambda value, text: (chat("hi"), {"x-inferwatch-user": header(value), "x-inferwatch-session": header(value)}, ""),
    "other headers": lambda value, text: (
        chat("hi"), {"user-agent": header(value), "cookie": f"a={header(value)}", "x-request-id": header(value)}, "",
    ),
    "trace headers": lambda value, text: (
        chat("hi"), {
            "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "baggage": f"customer={quote(value)},raw={header(value)}",
            "tracestate": f"vendor={header(value).replace('=', '.').replace(',', '.')},ot=th:c8;x:{quote(value, safe='')}",
        }, "",
    ),
    "invalid body": lambda value, text: (b'{"model": "' + value.encode(), {}, ""),
    "refused": lambda value, text: (chat(text, max_tokens=-1), {}, ""),
    "path": lambda value, text: (chat("hi"), {}, "/" + quote(value, safe="")),
    "completion": lambda value, text: (json.dumps({"model": MODEL, "prompt": text, "max_tokens": 3, "echo": True}).encode(), {}, None),
}  # fmt: skip


async def plant_all(stack: Stack, numbers: Iterable[int] = range(REQUESTS)) -> list[str]:
    """Send everything; returns the values. A connection that a crash breaks is no answer, and nobody's fault."""
    values: list[str] = []
    gate = asyncio.Semaphore(AT_ONCE)
    kinds, places = list(planted.KINDS), list(PLACES)

    async def send(session: aiohttp.ClientSession, number: int) -> None:
        kind = kinds[number % len(kinds)]
        place = places[(number + number // len(kinds)) % len(places)]
        value, text = planted.plant(kind, number)
        values.append(value)
        body, headers, suffix = PLACES[place](value, text)
        path = "/v1/completions" if suffix is None else f"/v1/chat/completions{suffix}"
        with contextlib.suppress(aiohttp.ClientError):
            async with (
                gate,
                session.post(
                    stack.url + path, data=body, headers={"content-type": "application/json"} | headers
                ) as reply,
            ):
                if place == "aborted stream":
                    await reply.content.readany()
                    reply.close()
                else:
                    await reply.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:
        await asyncio.gather(*(send(session, number) for number in numbers))
    return values


def sinks(stack: Stack, received: Received) -> dict[str, bytes]:
    """Return the bytes of every sink."""
    found = {"otlp": bytes(received.raw), "stdout and stderr": (stack.folder / "log").read_bytes()}
    for page in PAGES:
        with urllib.request.urlopen(stack.admin + page, timeout=10) as reply:
            found[page] = reply.read()
    for path in (stack.folder / "state").rglob("*"):
        if path.is_file():
            found[str(path.relative_to(stack.folder))] = path.read_bytes()
    return found


@pytest.fixture
def content_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every request, so that there is something to hide in; and all that can be told is told."""
    for name, value in {
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_BSP_MAX_QUEUE_SIZE": "10000",
        "INFERWATCH__OTLP__TRACES": "true",
        "INFERWATCH__OTLP__LOGS": "true",
        "INFERWATCH__OTLP__METRICS": "true",
        "INFERWATCH__OTLP__METRICS_INTERVAL_S": "1",
        "INFERWATCH__PRIVACY__CONTENT": "hashed",
        "INFERWATCH__PRIVACY__SAMPLE_RATIO": "1",
        "INFERWATCH__PRIVACY__KEY_FILE": str(KEYS),
        "INFERWATCH__LOG__LEVEL": "debug",
    }.items():
        monkeypatch.setenv(name, value)


def leaks(values: list[str], found: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """Return the sinks that have one of `values` in any of its forms."""
    return [
        (sink, form[:40])
        for value in values
        for form in planted.forms(value)
        for sink, data in found.items()
        if form in data
    ]


@pytest.mark.timeout(300)
async def test_no_sink_has_a_planted_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_is_kept: None
) -> None:
    """Neither as it is, nor in base64, URL-encoded or escaped for JSON."""
    with http_receiver() as (url, received):
        monkeypatch.setenv("INFERWATCH__OTLP__ENDPOINT", url)
        stack = Stack(tmp_path)
        try:
            stack.start()
            values = await plant_all(stack)
            await asyncio.to_thread(stack.settled, REQUESTS, 60)
            await asyncio.to_thread(received.wait, "spans", int(REQUESTS * 0.9), 60)
            found = sinks(stack, received)
            assert stack.stop_serving() == 0
            found |= {"otlp": bytes(received.raw), "stdout and stderr": (tmp_path / "log").read_bytes()}
        finally:
            stack.close()
    assert len(set(values)) > REQUESTS * 0.95
    kept = sum(b"<EMAIL:t1." in data for data in found.values())
    assert kept, "no content was kept: there was nothing to hide in"
    assert not leaks(values, found)[:10]


# What a fault in our own code is like: an exception that nobody catches, in the midst of work. Asked for by a signal.
CRASH: Final = """
import signal

class Fault(BaseException):
    pass

def crash(number, frame):
    raise Fault("nobody catches it")

signal.signal(signal.SIGUSR2, crash)
"""


@pytest.mark.timeout(300)
async def test_no_crash_and_no_spool_has_a_planted_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_is_kept: None
) -> None:
    """Collector and relay crash under load, by an exception and by an abort that dumps their stacks; then no collector.

    What they say while they die goes to standard error; what is finished without a collector is in the spool.
    """
    (tmp_path / "crash").mkdir()
    (tmp_path / "crash/sitecustomize.py").write_text(CRASH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "crash"))
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    with http_receiver() as (url, received):
        monkeypatch.setenv("INFERWATCH__OTLP__ENDPOINT", url)
        stack = Stack(tmp_path)
        try:
            stack.start()
            assert all(
                b"Max core file size        0 " in limits(pid) for pid in stack.pids(COLLECTOR) + stack.pids(RELAY)
            )
            values, watching = [], asyncio.create_task(_watch(stack))
            for module in (COLLECTOR, RELAY):
                for number in (signal.SIGUSR2, signal.SIGABRT):
                    load = asyncio.create_task(plant_all(stack, CRASHING))
                    await asyncio.sleep(0.3)
                    stack.kill(module, number)
                    values += await load
                    await asyncio.to_thread(wait_until, lambda: status(f"{stack.admin}/readyz") == 200, "Inferwatch")
            spooled, load = bytearray(), asyncio.create_task(plant_all(stack, SPOOLED))
            while not load.done():  # each time it is back it is killed: what is finished in between is spooled
                for pid in stack.pids(COLLECTOR):
                    os.kill(pid, signal.SIGKILL)
                for file in (tmp_path / "state").rglob("*spool*/*"):
                    with contextlib.suppress(FileNotFoundError):
                        spooled += file.read_bytes()
                await asyncio.sleep(0.1)
            values += await load
            await asyncio.to_thread(wait_until, lambda: status(f"{stack.admin}/readyz") == 200, "Inferwatch")
            found = sinks(stack, received) | {"spool": bytes(spooled), "frames": await _stopped(watching)}
            assert stack.stop_serving() == 0
            found["stdout and stderr"] = (tmp_path / "log").read_bytes()
        finally:
            stack.close()
    said = found["stdout and stderr"]
    assert said.count(b"Fault: nobody catches it") >= 1  # a loop may take it for its own to report
    assert said.count(b"Fatal Python error: Aborted") == 2
    assert len(found["spool"]) > 10_000
    assert b"data:" in found["frames"]
    assert not leaks(values, found)[:10]


def limits(pid: int) -> bytes:
    """Return what the kernel lets a process do. An image of its memory, if it wrote one, would hold prompts."""
    return Path(f"/proc/{pid}/limits").read_bytes()


async def _watch(stack: Stack) -> bytes:
    """Look at the live page until cancelled; return its frames."""
    frames = bytearray()
    try:
        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{stack.admin}/live/events") as reply:
                        async for data in reply.content.iter_any():
                            frames += data
                await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        return bytes(frames)


async def _stopped(watching: "asyncio.Task[bytes]") -> bytes:
    watching.cancel()
    return await watching
