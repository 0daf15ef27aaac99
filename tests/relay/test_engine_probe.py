"""engine_probe: who is behind us, asked once, and again when it was gone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from harness import Engine, EngineSide, ok, until, wire

from inferwatch.engines import UNKNOWN, VLLM
from inferwatch.relay import engine_probe
from inferwatch.relay.engine_probe import Engine as Known
from inferwatch.relay.engine_probe import fetch
from inferwatch.relay.pool import Pool


@pytest.fixture(name="engine")
async def _engine() -> AsyncIterator[Engine]:
    engine = Engine()
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture(name="pool")
def _pool(engine: Engine) -> Pool:
    return Pool("127.0.0.1", engine.port, tls=None, max_idle=8, idle_s=4.0, connect_timeout_s=1.0)


@contextlib.asynccontextmanager
async def probing(known: Known, pool: Pool) -> AsyncIterator[None]:
    """Run the probe meanwhile."""
    task = asyncio.create_task(known.run(pool))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        (ok(b'{"version":"0.32.0"}'), "vllm"),
        (ok(b'{"version":"0.32.0","ollama":true}'), "unknown"),
        (ok(b'{"version":1}'), "unknown"),
        (ok(b"not json"), "unknown"),
        (ok(b"\xff\xfe"), "unknown"),
        (ok(b"[]"), "unknown"),
        (ok(b""), "unknown"),
        (wire("HTTP/1.1 404 Not Found\nContent-Length: 2\n\n", b"{}"), "unknown"),
        (wire("HTTP/1.1 401 Unauthorized\nContent-Length: 0\n\n"), "unknown"),
    ],
)
async def test_engine_is_known_by_its_version(engine: Engine, pool: Pool, reply: bytes, name: str) -> None:
    """vLLM answers /version with just that; anything else is forwarded to and asked for nothing."""
    engine.answer(reply)
    known = Known("auto")
    async with probing(known, pool):
        await until(lambda: bool(known.name))
    assert known.name == name
    assert known.profile.name == name
    assert engine.requests[0].start == b"GET /version HTTP/1.1"


@pytest.mark.parametrize(
    "first",
    [
        wire("HTTP/1.1 503 Service Unavailable\nContent-Length: 0\n\n"),
        b"garbage\r\n\r\n",
        wire("HTTP/1.1 101 Switching Protocols\nConnection: upgrade\nUpgrade: x\n\n"),
    ],
)
async def test_engine_that_is_starting_is_asked_again(
    engine: Engine, pool: Pool, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM takes a minute to load a model."""
    monkeypatch.setattr(engine_probe, "RETRY_S", 0.01)
    turns = [first, ok(b'{"version":"1"}'), ok(b"{}")]

    async def script(side: EngineSide) -> None:
        await side.request()
        side.send(turns.pop(0))
        await side.rest()

    engine.run(script)
    known = Known("auto")
    async with probing(known, pool):
        await until(lambda: bool(known.name))
    assert known.name == "vllm"


async def test_engine_that_says_nothing_is_asked_again(
    engine: Engine, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After REPLY_TIMEOUT_S; the hung connection is closed."""
    monkeypatch.setattr(engine_probe, "RETRY_S", 0.01)
    monkeypatch.setattr(engine_probe, "REPLY_TIMEOUT_S", 0.01)
    known = Known("auto")
    async with probing(known, pool):
        await (await engine.accept()).rest()
        await engine.accept()
    assert known.name == ""


async def test_known_engine_is_not_asked_again(engine: Engine, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a connection failed: whoever answers next may be another."""
    monkeypatch.setattr(engine_probe, "RETRY_S", 0.01)
    engine.answer(ok(b'{"version":"1"}'), ok(b"{}"), ok(b"{}"))
    known = Known("auto")
    async with probing(known, pool):
        await until(lambda: known.name == "vllm")
        await asyncio.sleep(0.05)
        assert [request.start.split()[1] for request in engine.requests] == [b"/version", b"/v1/models"]
        known.fingerprint.value = b"old"
        known.unreachable()
        await until(lambda: known.name == "unknown")
    assert known.fingerprint.value is None


@pytest.mark.parametrize("name", ["vllm", "unknown"])
async def test_configured_engine_is_never_asked(engine: Engine, pool: Pool, name: str) -> None:
    """It is what the configuration says, at once."""
    known = Known(name)
    async with asyncio.timeout(5):
        await known.run(pool)
        await known.known()
    assert known.name == name
    assert engine.connections == 0


async def test_first_requests_wait_only_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an engine that is slow to say who it is; then nobody waits again."""
    monkeypatch.setattr(engine_probe, "FIRST_REQUEST_WAIT_S", 0.01)
    known = Known("auto")
    await known.known()
    monkeypatch.setattr(engine_probe, "FIRST_REQUEST_WAIT_S", 1000.0)
    async with asyncio.timeout(5):
        await known.known()
    assert known.profile is UNKNOWN


async def test_request_that_waits_gets_the_answer(engine: Engine, pool: Pool) -> None:
    """One round trip, once in the life of an engine."""
    engine.answer(ok(b'{"version":"1"}'))
    known = Known("auto")
    async with probing(known, pool):
        await known.known()
        await until(lambda: known.profile is VLLM)


async def test_answer_is_bounded(engine: Engine, pool: Pool) -> None:
    """An endless version fills no memory."""

    async def script(side: EngineSide) -> None:
        await side.request()
        side.send(ok(b"x" * 10_000_000))
        await side.rest()

    engine.run(script)
    status, _, body = await fetch(pool, b"/version")
    assert status == 200
    assert len(body) <= engine_probe.MAX_REPLY_BYTES + 1_000_000


async def test_probe_leaves_no_connection(engine: Engine, pool: Pool) -> None:
    """Neither open nor in the pool."""
    engine.answer(ok(b"{}"))
    await fetch(pool, b"/version")
    await until(lambda: pool.idle == 0)


async def test_the_connection_of_a_probe_is_never_a_requests(engine: Engine, pool: Pool) -> None:
    """Not even between its reply and its end, when it could be taken for idle, and be aborted in somebody's hands."""
    engine.answer(ok(b"{}"))
    probe = asyncio.create_task(fetch(pool, b"/version"))
    while not probe.done():
        assert pool.take() is None
        await asyncio.sleep(0)
    assert (await probe)[0] == 200


async def test_nobody_there(free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe goes on asking, and names nobody."""
    monkeypatch.setattr(engine_probe, "RETRY_S", 0.001)
    pool = Pool("127.0.0.1", free_port(), tls=None, max_idle=1, idle_s=1.0, connect_timeout_s=1.0)
    known = Known("auto")
    async with probing(known, pool):
        await until(lambda: pool.connect_errors >= 3)
    assert known.name == ""
