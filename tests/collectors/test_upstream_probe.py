"""Is the engine there?"""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from inferwatch.tasks import TaskSet
from inferwatch_collectors import upstream_probe
from inferwatch_collectors.upstream_probe import UpstreamProbe, UpstreamWatch


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Of a server that accepts connections and says nothing."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.usefixtures("nothing_blocks")
async def test_up(port: int) -> None:
    """Whoever accepts connections is up, even if it never answers."""
    assert await UpstreamProbe(f"http://127.0.0.1:{port}").probe()


async def test_refused() -> None:
    """Nobody listens: down."""
    assert not await UpstreamProbe(f"http://127.0.0.1:{free_port()}").probe()


async def test_no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that cannot be resolved, or that is none, is down, not an error."""

    async def unresolvable(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert not await UpstreamProbe("http://" + "a" * 300 + ".invalid:80").probe()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unresolvable)
    assert not await UpstreamProbe("http://engine:80").probe()


async def test_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that hangs is down after the time limit."""

    async def hang(*_: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(upstream_probe, "TIMEOUT_S", 0.01)
    monkeypatch.setattr(asyncio, "open_connection", hang)
    assert not await UpstreamProbe("http://127.0.0.1:1").probe()


async def test_run_follows_the_upstream(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """`up` is unknown before the first try and changes with the upstream."""
    monkeypatch.setattr(upstream_probe, "INTERVAL_S", 0.01)
    probe = UpstreamProbe(f"http://127.0.0.1:{port}")
    assert probe.up is None
    running = asyncio.get_running_loop().create_task(probe.run())
    async with asyncio.timeout(10):
        while probe.up is not True:
            await asyncio.sleep(0.005)
        probe.port = free_port()
        while probe.up is not False:
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_another_upstream(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """It is probed instead of the old one; the same, by another path or password, goes on."""
    monkeypatch.setattr(upstream_probe, "INTERVAL_S", 0.01)

    def failed(name: str, error: BaseException) -> None:
        raise AssertionError(name) from error

    tasks = TaskSet(failed)
    watch = UpstreamWatch("http://127.0.0.1:1", tasks)
    watch.start()
    first, probing = watch.probe, watch._task
    assert watch.use("http://user:secret@127.0.0.1:1") == ""
    assert watch.probe is first
    assert watch.use(f"http://127.0.0.1:{port}") == "127.0.0.1:1"
    async with asyncio.timeout(10):
        while watch.probe.up is not True:
            await asyncio.sleep(0.005)
    assert probing is not None
    assert probing.cancelled()
    await tasks.close()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://engine", "engine:80"),
        ("https://engine", "engine:443"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://user:secret@engine:1", "engine:1"),
    ],
)
def test_the_name_is_host_and_port(url: str, name: str) -> None:
    """The label tells where, and nothing that may be secret."""
    assert UpstreamProbe(url).name == name
