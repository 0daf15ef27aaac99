"""`inferwatch demo`: a simulated engine, the real proxy in front of it, traffic, and the live numbers in the terminal.

Each part is a process of its own, as in production; this one only starts them, sends the traffic and shows what the
proxy's `/metrics` says. Nothing on the screen comes from the simulator: all of it went over the wire and was counted
there.

With `against`, only the traffic: to an Inferwatch that runs already, say in a container beside this one.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final, NamedTuple

import aiohttp

from inferwatch_simulator import load, screen
from inferwatch_simulator.readings import Scrape, parse

REFRESH_S: Final = 1.0
# Rates and quantiles are of the last so many seconds: long enough to be calm, short enough to be live.
WINDOW_S: Final = 10.0
START_TIMEOUT_S: Final = 20.0


# There is no GPU to look for; and a rented one of this price, so that the money moves.
PROXY_SETTINGS: Final = {"INFERWATCH__GPU__SOURCE": "none", "INFERWATCH__COST__HOURLY_DOLLARS": "3.50"}


class Options(NamedTuple):
    """What the command line may change."""

    seconds: float | None = None  # None: until Ctrl-C
    against: str | None = None  # None: start an engine and a proxy
    rate: float = 6.0  # conversations per second
    seed: int = 1
    profile: str = "demo"
    listen: str = "127.0.0.1:8080"
    admin: str = "127.0.0.1:9480"


def run(options: Options) -> int:
    """Run the demo. Returns the exit code."""
    return asyncio.run(_run(options))


async def _run(options: Options) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if options.against is not None:
        return await _only_traffic(options.against.rstrip("/"), options, stop)
    listen, admin = _usable(options.listen), _usable(options.admin)
    engine_port = _free_port()
    with tempfile.TemporaryDirectory(prefix="inferwatch-demo-") as state_dir:
        engine = ["simulate", "--port", str(engine_port), "--seed", str(options.seed)]
        proxy = ["serve", "--upstream", f"http://127.0.0.1:{engine_port}", "--listen", listen, "--admin", admin]
        proxy += ["--state-dir", state_dir, "--log-level", "warning"]
        async with _process(engine), _process(proxy, PROXY_SETTINGS), aiohttp.ClientSession() as session:
            view = screen.Screen(sys.stdout, data=f"http://{listen}", metrics=f"http://{admin}/metrics")
            if not await _ready(session, f"http://{admin}/readyz", stop):
                sys.stderr.write("inferwatch: the demo did not start; try `inferwatch serve` to see why\n")
                return 1
            async with asyncio.TaskGroup() as group:
                traffic = group.create_task(
                    load.drive(f"http://{listen}", options.profile, asyncio.Event(), options.seed, options.rate)
                )
                if options.seconds is not None:
                    asyncio.get_running_loop().call_later(options.seconds, stop.set)
                await _show(session, f"http://{admin}/metrics", view, stop)
                traffic.cancel()  # nobody wants to wait for the last answers
            view.close(await _scrape(session, f"http://{admin}/metrics"))
    return 0


async def _only_traffic(url: str, options: Options, stop: asyncio.Event) -> int:
    """Send traffic to a server that somebody else runs; it may come up later than this, and go away in between."""
    async with aiohttp.ClientSession() as session:
        while not stop.is_set() and not await _answers(session, f"{url}/v1/models"):
            await asyncio.sleep(REFRESH_S)
    if options.seconds is not None:
        asyncio.get_running_loop().call_later(options.seconds, stop.set)
    if not stop.is_set():
        counts = await load.drive(url, options.profile, stop, options.seed, options.rate)
        sys.stdout.write(f"{counts.requests} requests, {counts.ok} ok, {counts.failed} failed\n")
    return 0


async def _show(session: aiohttp.ClientSession, url: str, view: screen.Screen, stop: asyncio.Event) -> None:
    history: list[Scrape] = []
    while not stop.is_set():
        scrape = await _scrape(session, url)
        if scrape is not None:
            history.append(scrape)
            while scrape.at_s - history[0].at_s > WINDOW_S:
                history.pop(0)
            view.draw(history[0], scrape)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_S):
                _ = await stop.wait()


async def _scrape(session: aiohttp.ClientSession, url: str) -> Scrape | None:
    try:
        async with session.get(url) as reply:
            return parse(await reply.text(), time.monotonic())
    except aiohttp.ClientError:
        return None


async def _ready(session: aiohttp.ClientSession, url: str, stop: asyncio.Event) -> bool:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and not stop.is_set():
        if await _answers(session, url):
            return True
        await asyncio.sleep(0.1)
    return False


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with session.get(url) as reply:
            return reply.status == 200
    return False


@contextlib.asynccontextmanager
async def _process(arguments: list[str], settings: Mapping[str, str] | None = None) -> AsyncIterator[None]:
    """Run one of our own commands beside us; stopped as it would be in production, by SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "inferwatch", *arguments),
        stdout=asyncio.subprocess.DEVNULL,
        process_group=0,
        env={**os.environ, **(settings or {})},
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(10):
                _ = await process.wait()
        except TimeoutError:
            process.kill()
            _ = await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _usable(address: str) -> str:
    """Return the address, or one with a free port if somebody has it already."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return f"{host}:{_free_port()}"
    return address
