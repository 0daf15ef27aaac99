"""`inferwatch demo`: a simulated engine, the real proxy in front of it, traffic, and the live numbers in the terminal.

Each part is a process of its own, as in production; this one only starts them, sends the traffic and shows what the
proxy's `/metrics` says. Nothing on the screen comes from the simulator: all of it went over the wire and was counted
there.

With `against`, only the traffic: to an Inferwatch that runs already, say in a container beside this one.
"""

import asyncio
import contextlib
import signal
import socket
import sys
import tempfile
import time
import webbrowser
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from inferwatch.config import reachable_address
from inferwatch_simulator import load, screen
from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.readings import Scrape, parse
from inferwatch_simulator.scenarios import BY_NAME, Scenario, settings, tenants

REFRESH_S: Final = 1.0
# Rates and quantiles are of the last so many seconds: long enough to be calm, short enough to be live.
WINDOW_S: Final = 10.0
START_TIMEOUT_S: Final = 20.0

# How often the demo looks whether a phase begins, and whether drift has been learnt.
FOLLOW_S: Final = 0.5
PIN_S: Final = 5.0


class Options(NamedTuple):
    """What the command line may change."""

    seconds: float | None = None  # None: until Ctrl-C
    against: str | None = None  # None: start an engine and a proxy
    rate: float | None = None  # conversations per second; None: the scenario's
    seed: int = 1
    scenario: str = "day"
    browser: bool = False  # open the live page in one
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
    scenario = BY_NAME[options.scenario]
    listen, admin = _usable("listen", options.listen), _usable("admin", options.admin)
    engine_port = _free_port()
    with tempfile.TemporaryDirectory(prefix="inferwatch-demo-") as folder:
        engine = ["simulate", "--port", str(engine_port), "--seed", str(options.seed)]
        proxy = ["serve", "--upstream", f"http://127.0.0.1:{engine_port}", "--listen", listen, "--admin", admin]
        proxy += ["--config", _configured(Path(folder), scenario)]
        proxy += ["--state-dir", f"{folder}/state", "--log-level", "error"]
        async with _process(engine), _process(proxy), aiohttp.ClientSession() as session:
            view = screen.Screen(sys.stdout, data=f"http://{listen}", metrics=f"http://{admin}/metrics")
            if not await _ready(session, f"http://{admin}/readyz", stop):
                if not stop.is_set():
                    sys.stderr.write("inferwatch: the demo did not start; try `inferwatch serve` to see why\n")
                return 0 if stop.is_set() else 1
            if options.browser:
                _ = webbrowser.open(f"http://{admin}/")
            async with asyncio.TaskGroup() as group:
                rate = options.rate or scenario.rate
                traffic = group.create_task(
                    load.drive(f"http://{listen}", scenario.profile, asyncio.Event(), options.seed, rate)
                )
                following = group.create_task(_follow(session, scenario, view, engine_port, admin))
                if options.seconds is not None:
                    asyncio.get_running_loop().call_later(options.seconds, stop.set)
                await _show(session, f"http://{admin}/metrics", view, stop)
                traffic.cancel()  # nobody wants to wait for the last answers
                following.cancel()
            view.close(await _scrape(session, f"http://{admin}/metrics"))
    return 0


def _configured(folder: Path, scenario: Scenario) -> str:
    """Write the scenario's configuration and the keys of its tenants; return the file."""
    files = {}
    for name, key in tenants(scenario).items():
        file = folder / f"{name}.key"
        file.touch(mode=0o600)
        file.write_text(f"{key}\n", encoding="utf-8")
        files[name] = str(file)
    config = folder / "inferwatch.yml"
    config.write_bytes(msgspec.yaml.encode(settings(scenario, files)))
    return str(config)


async def _follow(
    session: aiohttp.ClientSession, scenario: Scenario, view: screen.Screen, engine_port: int, admin: str
) -> None:
    """Tell the engine and the screen which phase it is, and pin what was learnt for drift, once."""
    began_s = time.monotonic()
    phase, pinned, tried_s = None, not scenario.learns, began_s
    while True:
        now_s = time.monotonic()
        if phase is not (current := scenario.at(now_s - began_s)):
            view.says = f"{scenario.name}: {current.says}"
            if current.speed != (1.0 if phase is None else phase.speed):
                await _post(session, f"http://127.0.0.1:{engine_port}/simulator/speed", {"speed": current.speed})
            phase = current
        if not pinned and now_s - tried_s > PIN_S:
            tried_s = now_s
            where = f"http://{admin}/drift/pin?model={SimulatorConfig().model}&tenant={scenario.learns}"
            pinned = await _post(session, where, None)
        await asyncio.sleep(FOLLOW_S)


async def _post(session: aiohttp.ClientSession, url: str, body: Any) -> bool:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with session.post(url, json=body) as reply:
            return reply.status == 200
    return False


async def _only_traffic(url: str, options: Options, stop: asyncio.Event) -> int:
    """Send traffic to a server that somebody else runs; it may come up later than this, and go away in between."""
    async with aiohttp.ClientSession() as session:
        while not stop.is_set() and not await _answers(session, f"{url}/v1/models"):
            await asyncio.sleep(REFRESH_S)
    if options.seconds is not None:
        asyncio.get_running_loop().call_later(options.seconds, stop.set)
    if not stop.is_set():
        scenario = BY_NAME[options.scenario]
        counts = await load.drive(url, scenario.profile, stop, options.seed, options.rate or scenario.rate)
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
async def _process(arguments: list[str]) -> AsyncIterator[None]:
    """Run one of our own commands beside us; stopped as it would be in production, by SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "inferwatch", *arguments),
        stdout=asyncio.subprocess.DEVNULL,
        process_group=0,
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


def _usable(key: str, address: str) -> str:
    """Return the address, or one with a free port if somebody has that already, or it is 0.

    Raises:
        ConfigError: it is none, naming `key`.
    """
    host, port = reachable_address(key, address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            port = _free_port()
        else:
            port = probe.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
