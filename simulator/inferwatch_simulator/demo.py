"""`inferwatch demo`: a simulated engine, the real proxy in front of it, traffic, and the live numbers in the terminal.

Each part is a process of its own, as in production; this one only starts them, sends the traffic and shows what the
proxy's `/metrics` says. Nothing on the screen comes from the simulator: all of it went over the wire and was counted
there.

With `against`, only the traffic: to an Inferwatch that runs already, say in a container beside this one.
"""

import asyncio
import contextlib
import signal
import sys
import time
import webbrowser
from collections.abc import Iterator, Sequence
from typing import Any, Final

import aiohttp

from inferwatch.flags import EXIT_RUNTIME
from inferwatch.progress import SLOW_S
from inferwatch_simulator import load, screen
from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.demo_start import Options, Started
from inferwatch_simulator.readings import Scrape, parse, rate
from inferwatch_simulator.scenarios import BY_NAME, Scenario

REFRESH_S: Final = 1.0
FIRST_S: Final = 0.1  # until something has been counted
# Rates and quantiles are of the last so many seconds: long enough to be calm, short enough to be live.
WINDOW_S: Final = 10.0
START_TIMEOUT_S: Final = 60.0  # a machine under load takes its time

# How often the demo looks whether a phase begins, and whether drift has been learnt.
FOLLOW_S: Final = 0.5
PIN_S: Final = 5.0


def show(options: Options, started: Started) -> int:
    """Send the scenario's traffic to what is starting, and show what comes of it. Returns the exit code."""
    return asyncio.run(_show_all(options, started))


def only_traffic(options: Options) -> int:
    """Send only the traffic, to `options.against`. Returns the exit code."""
    return asyncio.run(_only_traffic(options))


def _stopped_by_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _show_all(options: Options, started: Started) -> int:
    stop = _stopped_by_signals()
    scenario = BY_NAME[options.scenario]
    async with aiohttp.ClientSession() as session:
        view = screen.Screen(sys.stdout, data=started.data, metrics=f"{started.admin}/metrics")
        # Not /readyz, which looks for the engine every two seconds only: it starts beside the proxy.
        if not await _ready(session, (f"{started.engine}/v1/models", f"{started.admin}/metrics"), stop):
            if stop.is_set():
                return 0
            sys.stderr.write("inferwatch: the demo did not start; try `inferwatch serve` to see why\n")
            return 1
        if options.browser:
            _ = await asyncio.to_thread(webbrowser.open, f"{started.admin}/")
        async with asyncio.TaskGroup() as group:
            conversations = options.rate or scenario.rate
            sending = load.drive(started.data, scenario.profile, asyncio.Event(), options.seed, conversations)
            traffic = group.create_task(sending)
            following = group.create_task(_follow(session, scenario, view, started))
            if options.seconds is not None:
                asyncio.get_running_loop().call_later(options.seconds, stop.set)
            await _show(session, f"{started.admin}/metrics", view, stop)
            traffic.cancel()  # nobody wants to wait for the last answers
            following.cancel()
        view.close(await _scrape(session, f"{started.admin}/metrics"))
    return 0


async def _follow(session: aiohttp.ClientSession, scenario: Scenario, view: screen.Screen, started: Started) -> None:
    """Tell the engine and the screen which phase it is, and pin what was learnt for drift, once."""
    began_s = time.monotonic()
    phase, pinned, tried_s = None, not scenario.learns, began_s
    while True:
        now_s = time.monotonic()
        if phase is not (current := scenario.at(now_s - began_s)):
            view.says = f"{scenario.name}: {current.says}"
            changes = current.speed != (1.0 if phase is None else phase.speed)
            # An engine that was not told is told at the next look.
            if not changes or await _post(session, f"{started.engine}/simulator/speed", {"speed": current.speed}):
                phase = current
        if not pinned and now_s - tried_s > PIN_S:
            tried_s = now_s
            where = f"{started.admin}/drift/pin?model={SimulatorConfig().model}&tenant={scenario.learns}"
            pinned = await _post(session, where, None)
        await asyncio.sleep(FOLLOW_S)


async def _post(session: aiohttp.ClientSession, url: str, body: Any) -> bool:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with session.post(url, json=body) as reply:
            return reply.status == 200
    return False


async def _only_traffic(options: Options, stop: asyncio.Event | None = None) -> int:
    """Send traffic to a server that somebody else runs; it may come up later than this, and go away in between.

    It is waited for as long as traffic is to be sent, which is for ever unless that was said.
    """
    stop = stop or _stopped_by_signals()
    url = (options.against or "").rstrip("/")
    async with aiohttp.ClientSession() as session:
        try:
            with _told_if_slow(f"waiting for {url}"):
                async with asyncio.timeout(options.seconds):
                    while not stop.is_set() and not await _answers(session, f"{url}/v1/models"):
                        await asyncio.sleep(REFRESH_S)
        except TimeoutError:
            sys.stderr.write(f"inferwatch: demo: no answer from {url} within {options.seconds:g} s\n")
            return EXIT_RUNTIME
    if options.seconds is not None:
        asyncio.get_running_loop().call_later(options.seconds, stop.set)
    if not stop.is_set():
        scenario = BY_NAME[options.scenario]
        counts = await load.drive(url, scenario.profile, stop, options.seed, options.rate or scenario.rate)
        sys.stdout.write(f"{counts.requests} requests, {counts.ok} ok, {counts.failed} failed\n")
    return 0


async def _show(session: aiohttp.ClientSession, url: str, view: screen.Screen, stop: asyncio.Event) -> None:
    """Draw every second; more often until there is something to see."""
    history: list[Scrape] = []
    while not stop.is_set():
        scrape = await _scrape(session, url)
        moves = False
        if scrape is not None:
            history.append(scrape)
            while scrape.at_s - history[0].at_s > WINDOW_S:
                history.pop(0)
            moves = rate(history[0], scrape, "inferwatch_requests_total") > 0
            if moves or len(history) == 1 or scrape.at_s - history[0].at_s > REFRESH_S:
                view.draw(history[0], scrape)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_S if moves else FIRST_S):
                _ = await stop.wait()


async def _scrape(session: aiohttp.ClientSession, url: str) -> Scrape | None:
    try:
        async with session.get(url) as reply:
            return parse(await reply.text(), time.monotonic())
    except aiohttp.ClientError:
        return None


async def _ready(session: aiohttp.ClientSession, urls: Sequence[str], stop: asyncio.Event) -> bool:
    """Wait until all of them answer, once each."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    with _told_if_slow("starting the engine and the proxy"):
        for url in urls:
            while not await _answers(session, url):
                if time.monotonic() > deadline_s or stop.is_set():
                    return False
                await asyncio.sleep(0.05)
    return True


@contextlib.contextmanager
def _told_if_slow(what: str) -> Iterator[None]:
    """Tell what is waited for; on the loop, unlike `progress`, which has a thread for it."""
    told = asyncio.get_running_loop().call_later(SLOW_S, sys.stderr.write, f"inferwatch: demo: {what} …\n")
    try:
        yield
    finally:
        told.cancel()


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with session.get(url) as reply:
            return reply.status == 200
    return False
