"""What an open live page costs the collector: python -m bench.live_page [--windows N]

A simulated engine under a steady load of streams, Inferwatch before it, and windows in turn with one reader
of `/live/events` (which asks for history and alerts as a page does) and with none. The collector's CPU seconds
are read from /proc. What counts is the difference of neighbouring windows: the load and the machine are in both.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import aiohttp
from bench import procs
from tests.support.stack import Stack, chat, client, running, send

STREAMS: Final = 20
TOKENS: Final = 200
WINDOW_S: Final = 12.0
# As the page: the history each 5 s, the alerts each 15 s.
HISTORY_S: Final = 5.0
ALERTS_S: Final = 15.0


async def load(stack: Stack) -> None:
    """Send streams for ever, so many at a time."""
    async with client() as session:

        async def one() -> None:
            while True:
                await send(session, stack.url, chat(max_tokens=TOKENS))

        async with asyncio.TaskGroup() as group:
            for _ in range(STREAMS):
                group.create_task(one())


async def page(stack: Stack) -> None:
    """Ask for what an open page asks for, until cancelled."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:

        async def again(path: str, every_s: float) -> None:
            while True:
                async with session.get(stack.admin + path) as reply:
                    await reply.read()
                await asyncio.sleep(every_s)

        async def frames() -> None:
            async with session.get(f"{stack.admin}/live/events") as reply:
                async for _ in reply.content.iter_any():
                    pass

        async with asyncio.TaskGroup() as group:
            group.create_task(frames())
            group.create_task(again("/live/history?minutes=15", HISTORY_S))
            group.create_task(again("/live/alerts", ALERTS_S))


async def measure(stack: Stack, windows: int) -> dict[str, object]:
    """Return percent of a core, window by window, without a page and with one."""
    [pid] = stack.pids("inferwatch_collectors")
    loading = asyncio.create_task(load(stack))
    await asyncio.sleep(5)  # until as many begin as end
    found: dict[bool, list[float]] = {False: [], True: []}
    for window in range(2 * windows):
        is_open = window % 2 == 1
        looking = asyncio.create_task(page(stack)) if is_open else None
        await asyncio.sleep(1)
        began_ns, used_ns = time.monotonic_ns(), procs.cpu_ns(pid)
        await asyncio.sleep(WINDOW_S)
        found[is_open].append(100 * (procs.cpu_ns(pid) - used_ns) / (time.monotonic_ns() - began_ns))
        if looking is not None:
            looking.cancel()
            await asyncio.wait([looking])
    loading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loading
    differences = [with_one - without for without, with_one in zip(found[False], found[True], strict=True)]
    return {
        "streams": STREAMS,
        "window_s": WINDOW_S,
        "closed_percent": [round(value, 2) for value in found[False]],
        "open_percent": [round(value, 2) for value in found[True]],
        "difference_percent": [round(value, 2) for value in differences],
        "median_difference_percent": round(statistics.median(differences), 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.live_page", description=__doc__.partition("\n")[0])
    parser.add_argument("--windows", type=int, default=6, help="pairs of windows (default 6)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as stack:
        told = asyncio.run(measure(stack, options.windows))
    sys.stdout.write(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
