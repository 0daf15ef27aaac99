"""Clients and engines that leave at any moment, hundreds at once: nothing is left over, nothing raises."""

import asyncio
import os
import random
from typing import Any

import pytest
from harness import Engine, EngineSide, Rig, chunk, configured, get, ok, until, wire

SEED = int(os.environ.get("INFERWATCH_FUZZ_SEED", "20261121"))
REQUESTS = 600
AT_ONCE = 60

STREAM = wire("HTTP/1.1 200 OK\nContent-Type: text/event-stream\nTransfer-Encoding: chunked\n\n")


def ways(chance: random.Random) -> bytes:
    """A small request, a body, an upload that is streamed, or one that is never finished."""
    kind = chance.randrange(4)
    if kind == 0:
        return get("/get")
    if kind == 1:
        return wire("POST /post HTTP/1.1\nHost: h\nContent-Length: 500\n\n", b"x" * 500)
    size = 20_000
    sent = size if kind == 2 else chance.randrange(size)
    return wire(f"POST /upload HTTP/1.1\nHost: h\nContent-Length: {size}\n\n", b"x" * sent)


def say(side: EngineSide, data: bytes) -> None:
    """Unless the relay has gone, which uvloop's transports take amiss."""
    if not side.writer.is_closing():
        side.send(data)


async def engine_script(side: EngineSide) -> None:
    """Answer some, break some off, reset some, be slow with some."""
    chance = random.Random(SEED + side.writer.get_extra_info("peername")[1])
    while True:
        try:
            await side.request()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            side.close()
            return
        kind = chance.randrange(6)
        if kind == 0:
            say(side, ok(b"fine"))
        elif kind == 1:
            side.reset()
            return
        else:
            say(side, STREAM)
            for _ in range(chance.randrange(20)):
                say(side, chunk(b"data: x\n\n"))
                await asyncio.sleep(chance.choice((0, 0, 0.001)))
            if kind == 2:
                side.reset()
                return
            if kind == 3:
                side.close()
                return
            say(side, b"0\r\n\r\n")


async def client_script(rig: Rig, chance: random.Random) -> None:
    client = await rig.connect()
    data = ways(chance)
    client.send(data[: len(data) if chance.random() < 0.8 else chance.randrange(len(data))])
    kind = chance.randrange(4)
    if kind == 0:
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.003)))
        client.reset()
        return
    try:
        # The longest is long enough for a busy machine: some must see the end of their reply.
        async with asyncio.timeout(chance.choice((0.001, 0.02, 0.5))):
            while await client.reader.read(chance.choice((1, 10, 10_000))):
                pass
    except (TimeoutError, ConnectionError):
        pass
    if kind == 1:
        client.reset()
    else:
        client.close()


async def leave_and_check(rig: Rig, engine: Engine) -> None:
    chance = random.Random(SEED)
    turns = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with turns:
            await client_script(rig, chance)

    await asyncio.gather(*[one() for _ in range(REQUESTS)])
    await rig.idle()
    await until(lambda: not rig.server.connections)
    rig.tap.check()
    outcomes = {close.outcome for close in rig.tap.closes}
    assert {"ok", "client_abort", "stream_error"} <= outcomes <= {*outcomes, "upstream_error"} - {"interrupted"}
    rig.sweep(100.0)
    assert rig.pool.idle == 0
    engine.answer(ok(b"clean"))
    assert (await rig.ask(get())).body == b"clean"


@pytest.mark.parametrize("engine_name", ["unknown", "vllm"])
async def test_leaving_at_any_moment(engine_name: str) -> None:
    """Each request is booked once, every connection is closed or pooled, and a clean request works."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    engine = Engine()
    engine.run(engine_script)
    await engine.start()
    upstream = {"url": f"http://127.0.0.1:{engine.port}", "engine": engine_name}
    rig = Rig(configured(upstream=upstream, limits={"buffer_request_bytes": 1000}), engine)
    await rig.start()
    try:
        await leave_and_check(rig, engine)
    finally:  # uvloop waits for ever on a server that is left open where warnings are errors
        await rig.stop()
    assert faults == []
