"""worker: one relay process, run inside the test: ready, alive, reloaded, drained."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from harness import PATIENCE_S, Client, Engine, chunk, configured, get, ok, until, wire

from inferwatch import tap
from inferwatch.config import Config
from inferwatch.control import Channel
from inferwatch.relay import worker
from inferwatch.relay.worker import Start, Worker

STREAM = wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n")


class Supervisor:
    """Whoever started the worker, and the collector beside it."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.engine = Engine()
        self.config = Config()
        self.said: list[dict[str, Any]] = []
        self.told: list[Any] = []
        self.port = 0
        self.done: asyncio.Task[None] | None = None
        self._clients: list[Client] = []
        self._channel: Channel | None = None
        self._listening: asyncio.Task[None] | None = None
        self._collector: asyncio.Server | None = None

    async def start(self, **sections: Any) -> None:
        await self.engine.start()
        url = {"url": f"http://127.0.0.1:{self.engine.port}", "engine": "unknown"}
        self.config = configured(upstream=url | sections.pop("upstream", {}), **sections)
        self._collector = await asyncio.start_unix_server(self._collect, str(self.state_dir / "tap"))
        ours, its = socket.socketpair()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        start = Start(self.config, 0, str(self.state_dir / "tap"), str(self.state_dir / "spool"), "ab" * 16)
        process = Worker(start, await Channel.over(its))
        self._channel = await Channel.over(ours)
        self._listening = asyncio.create_task(self._listen())
        self.done = asyncio.create_task(process.run(listener))
        await until(lambda: {"ready": True} in self.said)

    async def _listen(self) -> None:
        assert self._channel is not None
        async for message in self._channel.messages():
            self.said.append(message)

    async def _collect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = tap.collector_side()
        while data := await reader.read(1 << 20):
            for message in frames.feed(data):
                self.told.append(message)
                if isinstance(message, tap.Batch):
                    writer.write(tap.encode(tap.Ack(message.seq)))
        writer.close()

    def send(self, message: dict[str, Any]) -> None:
        assert self._channel is not None
        self._channel.send(message)

    def hang_up(self) -> None:
        assert self._channel is not None
        self._channel.close()

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self._clients.append(client)
        return client

    def frames(self, kind: str) -> list[Any]:
        batches = [message for message in self.told if isinstance(message, tap.Batch)]
        return [frame for batch in batches for frame in getattr(batch, kind)]

    async def finished(self) -> None:
        assert self.done is not None
        async with asyncio.timeout(PATIENCE_S):
            await self.done

    async def stop(self) -> None:
        for client in self._clients:
            client.close()
        self.hang_up()
        if self.done is not None:
            with contextlib.suppress(TimeoutError):
                await self.finished()
            self.done.cancel()
        if self._listening is not None:
            await self._listening
        if self._collector is not None:
            self._collector.close()
        await self.engine.stop()


@pytest.fixture(name="supervisor")
async def _supervisor(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    monkeypatch.setattr(worker, "CHORES_S", 0.02)
    monkeypatch.setattr("inferwatch.memory.settle", lambda: None)  # the garbage of a test run is not a worker's
    monkeypatch.setattr("gc.disable", lambda: None)
    supervisor = Supervisor(state_dir)
    yield supervisor
    await supervisor.stop()


async def test_worker_serves_and_tells(supervisor: Supervisor) -> None:
    """Ready, beats, statistics, and requests end to end."""
    await supervisor.start()
    supervisor.engine.answer(ok(b"hello"))
    client = await supervisor.client()
    assert (await client.ask(get("/x"))).body == b"hello"
    await until(lambda: len(supervisor.frames("closes")) == 1)
    await until(lambda: any("beat" in message for message in supervisor.said))
    (opened,), (close,) = supervisor.frames("opens"), supervisor.frames("closes")
    assert (opened.path, close.outcome) == ("/x", "ok")
    stats = [message.stats for message in supervisor.told if isinstance(message, tap.Batch) and message.stats]
    await until(lambda: len(stats) > 0)
    last = stats[-1]
    assert (last.client_connections, last.tap_lost, last.observer_errors) == (1, 0, 0)


async def test_beats_count_up(supervisor: Supervisor) -> None:
    """So that the supervisor can tell a hung worker from an idle one."""
    await supervisor.start()
    await until(lambda: sum("beat" in message for message in supervisor.said) >= 3)
    beats = [message["beat"] for message in supervisor.said if "beat" in message]
    assert beats == list(range(1, len(beats) + 1))


async def test_statistics_add_up(supervisor: Supervisor) -> None:
    """Connections, retries and errors since the start, also over a reload."""
    await supervisor.start()
    supervisor.engine.answer(ok())
    client = await supervisor.client()
    await client.ask(get())
    other = Engine()
    await other.start()
    other.answer(ok(b"other"))
    changed = msgspec.to_builtins(supervisor.config)
    changed["upstream"]["url"] = f"http://127.0.0.1:{other.port}"
    supervisor.send({"config": changed})
    while (await client.ask(get())).body != b"other":
        await asyncio.sleep(0.01)
    total = supervisor.engine.connections + other.connections

    def counted() -> bool:
        stats = [message.stats for message in supervisor.told if isinstance(message, tap.Batch) and message.stats]
        return bool(stats) and stats[-1].upstream_connects == total

    await until(counted)
    await other.stop()


async def test_drain_lets_open_requests_finish(supervisor: Supervisor) -> None:
    """No new connections; the open request ends as it would have, and its connection with it."""
    await supervisor.start()
    client, idle = await supervisor.client(), await supervisor.client()
    client.send(get("/slow"))
    engine = await supervisor.engine.accept()
    await engine.request()
    engine.send(STREAM + chunk(b"one"))
    await client.read_until(b"one\r\n")
    supervisor.send({"drain": True})
    assert await idle.is_closed()
    with pytest.raises(OSError, match=r"."):
        await supervisor.client()
    engine.send(chunk(b"two") + b"0\r\n\r\n")
    assert (await client.rest()).endswith(b"two\r\n0\r\n\r\n")
    await supervisor.finished()
    (close,) = supervisor.frames("closes")
    assert close.outcome == "ok"
    assert any(isinstance(message, tap.Bye) for message in supervisor.told)


async def test_drain_tells_a_client_that_waits_to_close(supervisor: Supervisor) -> None:
    """A reply whose head was still to come carries Connection: close."""
    await supervisor.start()
    client = await supervisor.client()
    client.send(get())
    engine = await supervisor.engine.accept()
    await engine.request()
    supervisor.send({"drain": True})
    await asyncio.sleep(0.05)
    engine.send(ok())
    assert (await client.reply()).one("connection") == b"close"
    await supervisor.finished()


async def test_drain_has_an_end(supervisor: Supervisor) -> None:
    """What is still open after the time-out is cut and booked as interrupted; the engine is let go."""
    await supervisor.start(drain={"timeout_s": 0.05})
    client = await supervisor.client()
    client.send(get())
    engine = await supervisor.engine.accept()
    await engine.request()
    engine.send(STREAM + chunk(b"one"))
    await client.read_until(b"one\r\n")
    supervisor.send({"drain": True})
    await client.rest()
    await engine.rest()
    await supervisor.finished()
    (close,) = supervisor.frames("closes")
    assert (close.outcome, close.response_bytes) == ("interrupted", 3)


async def test_worker_without_a_supervisor_drains(supervisor: Supervisor) -> None:
    """Nothing outlives its parent."""
    await supervisor.start()
    supervisor.hang_up()
    await supervisor.finished()


async def test_worker_whose_chores_fail_drains(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay without time-outs is no relay: a whole one is started in its place."""
    await supervisor.start()

    def fail(*_: Any) -> None:
        raise RuntimeError("chore")

    monkeypatch.setattr("inferwatch.relay.server.Relay.sweep", fail)
    await supervisor.finished()


async def test_reload_takes_up_limits_and_keeps_the_connections(supervisor: Supervisor) -> None:
    """A changed limit holds for the next request; an unchanged engine keeps its pool."""
    await supervisor.start()
    supervisor.engine.answer(ok())
    client = await supervisor.client()
    body = wire("POST /x HTTP/1.1\nHost: h\nContent-Length: 100\n\n", b"x" * 100)
    assert (await client.ask(body)).status == 200
    changed = msgspec.to_builtins(supervisor.config)
    changed["limits"]["max_request_bytes"] = 10
    supervisor.send({"config": changed})
    while (reply := await client.ask(body)).status != 413:
        assert reply.one("connection") is None
        await asyncio.sleep(0.01)
    other = await supervisor.client()
    assert (await other.ask(get())).status == 200
    assert supervisor.engine.connections == 1
