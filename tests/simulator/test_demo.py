"""`inferwatch demo --against`: only the traffic, to what runs elsewhere."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import stack

from inferwatch_simulator import demo


async def test_it_waits_for_the_server_sends_and_says_what_came_of_it(tmp_path: Path) -> None:
    """A container with the traffic may start before the one that it talks to."""
    engine_port = stack.free_ports(1)[0]
    command = [sys.executable, "-m", "inferwatch"]
    traffic = await asyncio.create_subprocess_exec(
        *command, "demo", "--against", f"http://127.0.0.1:{engine_port}/", "--seconds", "3", "--rate", "20", "--scenario", "steady",
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


async def test_it_can_be_stopped_while_it_waits() -> None:
    """SIGTERM ends it also when there is nobody to talk to."""
    stop = asyncio.Event()
    stop.set()

    assert await demo._only_traffic(f"http://127.0.0.1:{stack.free_ports(1)[0]}", demo.Options(), stop) == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://[::1]:9"])
async def test_nobody_there_is_no_answer(url: str) -> None:
    """A refused connection is not an error of the demo's."""
    async with demo.aiohttp.ClientSession() as session:
        assert not await demo._answers(session, url)
