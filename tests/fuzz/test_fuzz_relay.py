"""Thousands of broken requests and replies through the relay, each compared with what happens without it.

INFERWATCH_FUZZ sets the number, INFERWATCH_FUZZ_SEED the seed. A failure names its case and shows its bytes: run that
one again with INFERWATCH_FUZZ_CASE.
"""

import asyncio
import collections
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from harness import PATIENCE_S, Client, Engine, EngineSide, Rig, chunked, configured, get, ok, post, sse, wire
from mutations import mutate, pieces
from references import H11Reply, Reply, Request, by_h11, by_llhttp, requests_by_h11

from inferwatch.relay.heads import origin_form, path_of
from inferwatch.relay.usage_filter import Fingerprint, Hide, UsageFilter

CASES = int(os.environ.get("INFERWATCH_FUZZ", "10000"))
SEED = int(os.environ.get("INFERWATCH_FUZZ_SEED", "20261121"))
ONLY = os.environ.get("INFERWATCH_FUZZ_CASE")

# Relays side by side: a broken request often ends with the client's idle time-out, which need not be waited for alone.
LANES = 16
CLIENT_IDLE_S = 0.15

EVENT = b'data: {"choices":[{"index":0,"text":"x","finish_reason":null}],"usage":{"completion_tokens":1}}\n\n'
FINISH = b'data: {"choices":[{"index":0,"finish_reason":"stop"}],"usage":{"completion_tokens":2}}\n\n'
LAST = b'data: {"choices":[],"usage":{"completion_tokens":2},"system_fingerprint":"fp"}\n\ndata: [DONE]\n\n'

REPLIES = [
    ok(b"hello", "Content-Type: text/plain", "Set-Cookie: a=1", "Set-Cookie: b=2"),
    ok(b"x" * 3000, "X-Long: " + "v" * 500),
    wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", chunked(b"hello", b"world", b"!" * 300)),
    wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: X-T\n\n", b"5;e=1\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"),
    wire("HTTP/1.1 103 Early Hints\nLink: </a>\n\nHTTP/1.1 404 Not Found\nContent-Length: 2\n\n", b"no"),
    wire("HTTP/1.1 204 No Content\nX: 1\n\n"),
    wire("HTTP/1.1 304 Not Modified\nETag: x\nContent-Length: 5\n\n"),
    wire("HTTP/1.0 200 OK\nContent-Type: text/plain\n\n", b"until the end"),
    wire("HTTP/1.1 200 OK\nConnection: close, X-Hop\nX-Hop: 1\nContent-Length: 5\n\n", b"hello"),
    wire("HTTP/1.1 400 Bad Request\nContent-Type: application/json\nContent-Length: 2\n\n", b"{}"),
    sse(EVENT, EVENT, FINISH, LAST),
]

REQUESTS = [
    get("/v1/models", "Accept: */*", "Authorization: Bearer k"),
    get("/", "Connection: close"),
    get("/", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    wire("GET /old HTTP/1.0\n\n"),
    wire("HEAD /x HTTP/1.1\nHost: h\n\n"),
    wire("GET http://other/x?y HTTP/1.1\nHost: h\n\n"),
    post('{"model":"m","stream":true,"messages":[]}', "/v1/chat/completions"),
    post('{"model":"m"}') + get("/second"),
    wire("POST /x HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n", chunked(b"hello", b"w" * 300)) + get("/second"),
    wire("POST /x HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n", b"3;a=b\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"),
    wire("POST /x HTTP/1.1\nHost: h\nExpect: 100-continue\nContent-Length: 3\n\n", b"abc"),
    wire("PUT /x HTTP/1.1\nHost: h\nConnection: X-Hop\nX-Hop: 1\nContent-Length: 0\n\n") + get("/1") + get("/2"),
    get("/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"),
    wire("OPTIONS * HTTP/1.1\nHost: h\n\n"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Slices, so that two processes can share them."""
    if "numbers" in metafunc.fixturenames:
        half, slices = CASES // 2, 4
        offset = 0 if "replies" in metafunc.function.__name__ else half
        edges = [offset + half * index // slices for index in range(slices + 1)]
        ranges = [range(start, end) for start, end in zip(edges, edges[1:], strict=False)]
        metafunc.parametrize("numbers", ranges, ids=[f"{numbers.start}-{numbers.stop}" for numbers in ranges])


class Lane:
    """One relay and its engine; cases run through it one after the other."""

    def __init__(self, name: str, client_idle_s: float) -> None:
        self.engine = Engine()
        self.engine_name = name
        self.rig: Rig | None = None
        self._client_idle_s = client_idle_s

    async def start(self) -> Rig:
        await self.engine.start()
        url = f"http://127.0.0.1:{self.engine.port}"
        upstream = {"url": url, "engine": self.engine_name}
        limits = {"client_idle_s": self._client_idle_s, "max_header_bytes": 16_384}
        self.rig = Rig(configured(upstream=upstream, limits=limits), self.engine)
        await self.rig.start()
        return self.rig

    async def is_clean(self) -> bool:
        """Whether a clean request gets a clean reply: nothing of the case is left in the pool."""
        assert self.rig is not None
        for _ in range(3):  # the idle time-out is so short that it may hit a slow machine's first request
            client = await self.rig.connect()
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                reply = await client.ask(get("/clean"))
                return (reply.status, reply.body) == (200, b"clean")
        return False

    def forget(self) -> None:
        """Start the books anew, after checking them."""
        assert self.rig is not None
        self.rig.tap.check()
        for frames in (self.rig.tap.opens, self.rig.tap.heads, self.rig.tap.reads, self.rig.tap.closes):
            frames.clear()


@pytest.fixture(name="run")
async def _run() -> AsyncIterator[object]:
    """Runs cases on LANES relays; shows what became of them."""
    lanes: list[Lane] = []
    outcomes: collections.Counter[str] = collections.Counter()

    async def run(numbers: range, make: type["Fuzzer"]) -> None:
        queue = [number for number in numbers if ONLY is None or number == int(ONLY)][::-1]

        async def work(fuzzer: Fuzzer) -> None:
            lanes.append(fuzzer.lane)
            await fuzzer.lane.start()
            while queue:
                number = queue.pop()
                async with asyncio.timeout(3 * PATIENCE_S):
                    outcomes[await fuzzer.case(number, random.Random(SEED * 1_000_003 + number))] += 1
                fuzzer.lane.forget()

        async with asyncio.TaskGroup() as group:
            for index in range(LANES):
                group.create_task(work(make(Lane("vllm" if index % 2 else "unknown", make.client_idle_s))))
        good = outcomes["whole"] + outcomes["relayed"]
        assert ONLY or (sum(outcomes.values()) == len(numbers) and good >= len(numbers) // 20), outcomes
        print(f"\n{sum(outcomes.values())} cases, seed {SEED}: {dict(outcomes.most_common())}")

    yield run
    for lane in lanes:
        if lane.rig is not None:
            await lane.rig.stop()


class Fuzzer:
    """Takes one case after the other through its lane."""

    client_idle_s = 75.0

    def __init__(self, lane: Lane) -> None:
        self.lane = lane

    async def case(self, number: int, chance: random.Random) -> str:
        """Run it; return how it ended. Raises AssertionError where the relay did what it must not."""
        raise NotImplementedError


# broken replies


@dataclass
class Spoken:
    """What the engine says, and how."""

    data: bytes
    cuts: list[bytes]
    closes: bool
    is_head: bool


class ReplyFuzzer(Fuzzer):
    """The engine breaks its replies; the client reads with h11."""

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane)
        self._spoken: Spoken | None = None
        lane.engine.run(self._serve)

    async def _serve(self, side: EngineSide) -> None:
        try:
            while True:
                request = await side.request()
                spoken = self._spoken
                if b" /clean " in request.start or spoken is None:
                    side.send(ok(b"clean"))
                    continue
                for piece in spoken.cuts:
                    side.send(piece)
                    await side.writer.drain()
                    await asyncio.sleep(0)
                if spoken.closes:
                    side.close()
                    return
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError, ValueError):
            side.close()

    async def case(self, number: int, chance: random.Random) -> str:
        assert self.lane.rig is not None
        data = mutate(chance, REPLIES)
        is_head = chance.random() < 0.1
        closes = chance.random() < 0.5
        if not closes:  # an engine that neither ends its reply nor hangs up is a time-out, and tested elsewhere
            closes = by_llhttp(data, closed=False, is_head=is_head).end != "complete"
        self._spoken = Spoken(data, pieces(chance, data), closes, is_head)
        stream = self.lane.engine_name == "vllm" and not is_head
        request = wire(f"{'HEAD' if is_head else 'GET'} /{number} HTTP/1.1\nHost: h\n\n")
        client = await self.lane.rig.connect()
        client.send(post('{"stream":true}', "/v1/completions") if stream else request)
        got, close = Reply(), None
        try:
            got = await read_reply(client, is_head=is_head)
            close = await self.lane.rig.tap.close()
            outcome = self._judge(self._spoken, got, close.outcome, stream=stream)
            assert await self.lane.is_clean(), "the pool is poisoned"
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"case {number}: {error!r}\nsaid {self._spoken}\ngot {got}\n{close}") from None
        client.close()
        await self.lane.rig.tap.close(2)
        return outcome

    def _judge(self, spoken: Spoken, got: Reply, outcome: str, *, stream: bool) -> str:
        assert self.lane.rig is not None
        strict = by_h11(spoken.data, closed=spoken.closes, is_head=spoken.is_head)
        other = by_llhttp(spoken.data, closed=spoken.closes, is_head=spoken.is_head)
        copy = self.lane.rig.tap.copy(self.lane.rig.tap.opens[0].id)
        if outcome == "upstream_error":
            assert got.status == 502 or strict.end == got.end == "none", "an error of ours is a 502"
            assert "complete" not in (strict.end, other.end) or other.end == "none", "a good reply was refused"
            return "refused"
        direct = strict if strict.end == "complete" else other
        if outcome == "stream_error":
            assert got.end == "partial" or strict.end == "none", "a broken reply must not look whole"
            assert other.end != "complete", "a good reply was broken off"
            assert stream or other.body.startswith(got.body), "bytes that were not sent"
            return "broken off"
        assert outcome == "ok", outcome
        assert direct.end == "complete", "a broken reply was passed as whole"
        assert got.end == "complete" or strict.end != "complete", "a good reply cannot be read any more"
        assert copy == direct.body, "the copy is not the body"
        if got.end != "complete":
            return "whole, but h11 does not read it either"
        assert (got.status, got.reason) == (direct.status, direct.reason)
        assert got.end_to_end == direct.end_to_end
        assert got.body in (direct.body, *shown(direct.body)) if stream else got.body == direct.body
        return "whole"


def shown(body: bytes) -> list[bytes]:
    """What the filter makes of a stream at once, whatever the reads were."""
    results = []
    for fingerprint in (None, b"", b',"system_fingerprint":"fp"'):
        known = Fingerprint()
        known.value = fingerprint
        stream = UsageFilter(Hide.ALL, several_choices=False, fingerprint=known)
        results.append(stream.feed(body) + stream.finish())
    return results


async def read_reply(client: Client, *, is_head: bool) -> Reply:
    """Read with h11 until the reply or the connection ends."""
    reader = H11Reply(is_head=is_head)
    while not reader.done:
        try:
            reader.feed(await client.read_some())
        except ConnectionError:
            reader.feed(b"")
    return reader.reply


# broken requests


async def read_all(client: Client, sent: bytes) -> bytes:
    """Read to the end; the idle time-out ends what nothing else ends. Behind a refusal nobody waits for ten seconds."""
    said = b""
    refusal_ends = (b"}}", b"close\r\n\r\n") if b"HEAD" in sent else (b"}}",)
    with contextlib.suppress(ConnectionError):
        while data := await client.read_some():
            said += data
            if b"\r\nconnection: close\r\n\r\n" in said and said.endswith(refusal_ends):
                break
    return said


class RequestFuzzer(Fuzzer):
    """The client breaks its requests; the engine takes what h11 takes for requests."""

    client_idle_s = CLIENT_IDLE_S

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane)
        self._heard: list[Request] = []
        self._unfinished: list[bytearray] = []
        lane.engine.run(self._serve)

    async def _serve(self, side: EngineSide) -> None:
        """Answer what h11 takes for a request; the connections stay open for the next ones."""
        buffer = bytearray()
        self._unfinished.append(buffer)
        while data := await side.reader.read(1 << 16):
            buffer += data
            found, is_whole = requests_by_h11(bytes(buffer))
            if not is_whole:
                continue
            buffer.clear()
            self._heard += found
            for request in found:
                head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
                side.send(head + (b"" if request.method == b"HEAD" else b"clean"))
        side.close()

    async def case(self, number: int, chance: random.Random) -> str:
        assert self.lane.rig is not None
        data = mutate(chance, REQUESTS)
        for _ in range(3):
            self._heard.clear()
            self._unfinished = [buffer for buffer in self._unfinished if buffer]
            said = b""
            try:
                said = await self._say(data, chance)
                if not said and not self.lane.rig.tap.opens and requests_by_h11(data)[1]:
                    continue  # the short idle time-out hit a connection that a busy machine had not come to
                outcome = self._judge(data, said)
                assert await self.lane.is_clean(), "the pool is poisoned"
                return outcome
            except (AssertionError, TimeoutError) as error:
                heard = [*self._heard, *self._unfinished]
                opens = [(frame.method, frame.path, frame.body) for frame in self.lane.rig.tap.opens]
                story = f"sent {data!r}\ngot {said!r}\nengine {heard}\n{opens}"
                raise AssertionError(f"case {number}: {error!r}\n{story}") from None
        return "never read"

    async def _say(self, data: bytes, chance: random.Random) -> bytes:
        """Send it in pieces; return what came back."""
        assert self.lane.rig is not None
        client = await self.lane.rig.connect()
        for piece in pieces(chance, data):
            if not client.writer.is_closing():
                client.send(piece)
                await asyncio.sleep(0)
        said = await read_all(client, data)
        await self.lane.rig.idle()
        client.close()
        return said

    def _judge(self, data: bytes, said: bytes) -> str:
        assert self.lane.rig is not None
        tap = self.lane.rig.tap
        heard = self._heard
        assert not any(self._unfinished), "what reached the engine is not well-formed"
        relayed = [frame for frame in tap.opens if frame.sent_ns]
        seen = [(got.method.decode(), path_of(got.target)) for got in heard]
        assert sorted(seen) == sorted((frame.method, frame.path) for frame in relayed), "engine and books disagree"
        bodies = sorted(len(frame.body) for frame in relayed if not frame.asked_usage)
        assert bodies == sorted(len(got.body) for got in heard if b"continuous_usage_stats" not in got.body)
        assert not any(frame.outcome == "interrupted" for frame in tap.closes)
        refused = sum(frame.outcome == "rejected" for frame in tap.closes)
        left = sum(frame.outcome == "client_abort" for frame in tap.closes)
        replies = said.count(b"HTTP/1.1 ") - said.count(b"HTTP/1.1 100 ")
        malformed = sum(frame.error == "malformed_request" for frame in tap.closes)
        # A client that still writes when its 400 comes may lose it to the reset of its connection.
        assert 0 <= len(tap.closes) - left - replies <= malformed, "every request gets one reply"
        expected, is_good = requests_by_h11(data)
        if is_good and not refused:
            wanted = [(got.method, origin_form(got.target)) for got in expected]
            arrived = [(got.method, got.target) for got in heard]
            assert arrived == wanted, "another request arrived"
            return "relayed"
        return "refused" if refused else "incomplete"


Run = Callable[[range, type[Fuzzer]], Awaitable[None]]


async def test_broken_replies(run: Run, numbers: range) -> None:
    """A client gets through the relay what it would have got without it, or sees that it is broken."""
    await run(numbers, ReplyFuzzer)


async def test_broken_requests(run: Run, numbers: range) -> None:
    """An engine gets well-formed requests only, those that the books have, and each has its reply."""
    await run(numbers, RequestFuzzer)
