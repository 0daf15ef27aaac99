"""tunnel: after a 101 bytes go both ways, and nothing piles up."""

import asyncio

from harness import Client, EngineSide, Rig, get, until, wire

UPGRADE = get("/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")
SWITCH = wire("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n")

# What two kernels' buffers and the two limits of 16 MB can hold, and then some.
FLOOD_BYTES = 96 << 20


async def tunnel(rig: Rig) -> tuple[Client, EngineSide]:
    client = await rig.connect(receive_buffer=4096)
    client.send(UPGRADE)
    engine = await rig.engine.accept()
    await engine.request()
    engine.send(SWITCH)
    await client.read_until(b"\r\n\r\n")
    return client, engine


async def flood(peer: Client | EngineSide) -> None:
    """Send for as long as the connection lives."""
    for _ in range(FLOOD_BYTES >> 20):
        if peer.writer.is_closing():
            break
        peer.send(b"x" * (1 << 20))
        await asyncio.sleep(0)


async def test_bytes_go_both_ways(rig: Rig) -> None:
    """In any sizes, at the same time."""
    client, engine = await tunnel(rig)
    for size in (1, 1000, 100_000):
        client.send(b"c" * size)
        engine.send(b"e" * size)
        assert await engine.read(size) == b"c" * size
        assert await client.read(size) == b"e" * size
    client.close()
    await engine.rest()
    assert (await rig.tap.close()).outcome == "ok"


async def test_engine_that_leaves_ends_the_tunnel(rig: Rig) -> None:
    """The client gets all that was said before."""
    client, engine = await tunnel(rig)
    engine.send(b"last words")
    engine.close()
    assert await client.rest() == b"last words"
    await rig.idle()


async def test_client_that_resets_ends_the_tunnel(rig: Rig) -> None:
    """Nothing is left open towards the engine."""
    client, engine = await tunnel(rig)
    client.reset()
    await engine.rest()
    await rig.idle()
    assert rig.pool.idle == 0


async def test_engine_that_takes_nothing_has_its_tunnel_cut(rig: Rig) -> None:
    """Both ends are closed; memory is bounded, and no handler sleeps for ever."""
    client, engine = await tunnel(rig)
    engine.writer.transport.pause_reading()  # type: ignore[attr-defined]
    flooding = asyncio.create_task(flood(client))
    await until(lambda: not rig.relay.active)
    await flooding
    engine.writer.transport.resume_reading()  # type: ignore[attr-defined]
    await asyncio.gather(engine.rest(), client.rest())


async def test_client_that_takes_nothing_has_its_tunnel_cut(rig: Rig) -> None:
    """The same the other way round."""
    client, engine = await tunnel(rig)
    flooding = asyncio.create_task(flood(engine))
    await until(lambda: not rig.relay.active)
    await flooding
    await engine.rest()
    client.close()


async def test_total_timeout_does_not_cut_a_tunnel(rig: Rig) -> None:
    """A conversation has no end that we know of; an engine may have one."""
    client, engine = await tunnel(rig)
    rig.sweep(1e6)
    client.send(b"still there")
    assert await engine.read(11) == b"still there"
    client.close()
    await engine.rest()
