"""`inferwatch demo --against`: only the traffic, to what runs elsewhere."""

import asyncio
import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import stack
from aiohttp import web

from inferwatch import cli
from inferwatch_simulator import demo, demo_start
from inferwatch_simulator.scenarios import Phase


async def test_it_waits_for_the_server_sends_and_says_what_came_of_it(tmp_path: Path) -> None:
    """A container with the traffic may start before the one that it talks to."""
    engine_port = stack.free_ports(1)[0]
    command = [sys.executable, "-m", "inferwatch"]
    traffic = await asyncio.create_subprocess_exec(
        *command, "demo", "--against", f"http://127.0.0.1:{engine_port}/", "--seconds", "8", "--rate", "20", "--scenario", "steady",
        stdout=subprocess.PIPE,
    )  # fmt: skip
    engine = await asyncio.create_subprocess_exec(
        *command, "simulate", "--port", str(engine_port), "--speed", "50", stdout=subprocess.DEVNULL
    )
    try:
        out, _ = await traffic.communicate()
    finally:
        engine.terminate()
        await engine.wait()

    requests, ok, failed = (int(part.split()[0]) for part in out.decode().split(", "))
    assert traffic.returncode == 0
    assert requests > ok > 0
    assert failed == 0


async def test_an_engine_that_did_not_hear_of_a_phase_is_told_again(
    monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    """Until it has taken the speed; then it is left alone."""
    told: list[int] = []
    looks: list[float] = []
    slow = Phase(0.0, "it is hot", (), speed=0.5)

    async def speed(_: web.Request) -> web.Response:
        told.append(503 if len(told) < 2 else 200)
        return web.Response(status=told[-1])

    def at(after_s: float) -> Phase:
        looks.append(after_s)
        return slow

    app = web.Application()
    app.router.add_post("/simulator/speed", speed)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    url = f"http://127.0.0.1:{(port := free_port())}"
    await web.TCPSite(runner, "127.0.0.1", port).start()
    monkeypatch.setattr(demo, "FOLLOW_S", 0.01)
    scenario: Any = SimpleNamespace(name="hot", learns="", at=at)
    view = demo.screen.Screen(io.StringIO(), data=url, metrics=url)
    async with demo.aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        following = group.create_task(demo._follow(session, scenario, view, demo.Started(url, url, url)))
        while len(looks) < 6:
            await asyncio.sleep(0.01)
        following.cancel()
    await runner.cleanup()
    assert told == [503, 503, 200]


async def test_it_can_be_stopped_while_it_waits() -> None:
    """SIGTERM ends it also when there is nobody to talk to."""
    stop = asyncio.Event()
    stop.set()

    options = demo.Options(against=f"http://127.0.0.1:{stack.free_ports(1)[0]}")
    assert await demo._only_traffic(options, stop) == 0


async def test_it_does_not_wait_for_ever(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody came within the seconds that traffic was to be sent for: one line, and 1."""
    url = f"http://127.0.0.1:{stack.free_ports(1)[0]}"
    assert await demo._only_traffic(demo.Options(against=url, seconds=0.2), asyncio.Event()) == 1
    assert capsys.readouterr().err == f"inferwatch: demo: no answer from {url} within 0.2 s\n"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://[::1]:9"])
async def test_nobody_there_is_no_answer(url: str) -> None:
    """A refused connection is not an error of the demo's."""
    async with demo.aiohttp.ClientSession() as session:
        assert not await demo._answers(session, url)


@pytest.fixture(name="short_folder")
def _short_folder() -> Iterator[Path]:
    """Not pytest's: the path of a Unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_all_of_it_starts_shows_numbers_and_ends(short_folder: Path) -> None:
    """With names of tenants on its screen, and nothing left in the folder for temporary files."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "inferwatch", "demo", "--scenario", "steady", "--seconds", "6", "--rate", "20"),
            *("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
        ],
        env={**os.environ, "TMPDIR": str(short_folder)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr in ("", "inferwatch: demo: starting the engine and the proxy …\n")  # on a busy machine
    assert "-- steady: the same all the time" in done.stdout
    assert "the live page is at http://127.0.0.1:" in done.stdout
    assert int(done.stdout.splitlines()[-1].split()[0]) > 0
    assert list(short_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "listened_on", "reached_at"),
    [
        ("0.0.0.0:0", "0.0.0.0", "127.0.0.1"),
        (":0", "0.0.0.0", "127.0.0.1"),
        ("127.0.0.1:0", "127.0.0.1", "127.0.0.1"),
        ("[::]:0", "[::]", "[::1]"),
    ],
)
def test_where_it_listens_is_what_was_said(
    monkeypatch: pytest.MonkeyPatch, address: str, listened_on: str, reached_at: str
) -> None:
    """On all interfaces, if so; only the addresses for people and for its own traffic are this host's."""
    commands: list[list[str]] = []

    def started(words: list[str]) -> contextlib.nullcontext[None]:
        commands.append(words)
        return contextlib.nullcontext()

    monkeypatch.setattr(demo_start, "_process", started)
    with demo_start._started(demo.Options(listen=address, admin=address)) as urls:
        serve = commands[1]
    for flag, url in (("--listen", urls.data), ("--admin", urls.admin)):
        host, _, port = serve[serve.index(flag) + 1].rpartition(":")
        assert host == listened_on
        assert url == f"http://{reached_at}:{port}"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--listen", "here"], "inferwatch: listen: expected `host:port`, got `here`\n"),
        (["--admin", "x:y"], "inferwatch: admin: expected `host:port`, got `x:y`\n"),
    ],
)
def test_an_address_that_is_none(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Said before anything is started."""
    assert cli.main(["demo", *words]) == cli.EXIT_USAGE
    assert capsys.readouterr().err == error
