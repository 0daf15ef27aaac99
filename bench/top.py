"""What `inferwatch top` costs with many streams: CPU of its process, and of the collector that it asks.

`python -m bench.top [--streams 500] [--seconds 20]`: a simulated engine, the real Inferwatch, so many streams held
open; nobody looking, then `top` on a terminal of 200 by 60 with its view of streams. CPU is of one core.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench import procs
from tests.support.stack import Stack, chat, client, hang_up_after, running

# So slow that the engine and the relay leave a core to what is measured; a stream has some tokens a second.
SIMULATOR = ("--decode-step-ms-base", "400", "--max-num-seqs", "1000")
SETTLE_S = 5.0


@contextlib.contextmanager
def watching(stack: Stack) -> Iterator[tuple[int, "_Screen"]]:
    """Run `top` on a terminal that is read by a thread; yield its process id, and that."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
    address = stack.admin.removeprefix("http://")
    process = subprocess.Popen(
        [sys.executable, "-m", "inferwatch", "top", "--admin", address, "--view", "streams"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(theirs)
    reader = _Screen(ours)
    reader.start()
    try:
        yield process.pid, reader
    finally:
        process.terminate()
        process.wait()
        reader.join()
        os.close(ours)


class _Screen(threading.Thread):
    """Takes what is drawn, and counts it."""

    def __init__(self, terminal: int) -> None:
        super().__init__(daemon=True)
        self._terminal = terminal
        self.bytes = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):  # the other end is gone
            while drawn := os.read(self._terminal, 65536):
                self.bytes += len(drawn)


async def share(pids: dict[str, int], seconds: float) -> dict[str, float]:
    """Return the share of a core that each process takes."""
    before = {name: procs.cpu_ns(pid) for name, pid in pids.items()}
    began_ns = time.monotonic_ns()
    await asyncio.sleep(seconds)
    took_ns = time.monotonic_ns() - began_ns
    return {name: (procs.cpu_ns(pid) - before[name]) / took_ns for name, pid in pids.items()}


async def measure(streams: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), simulate_flags=SIMULATOR) as stack:
        collector = stack.pids("inferwatch_collectors")[0]
        async with client() as session, asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    hang_up_after(session, stack.url, chat(f"say {n}", max_tokens=8000, user=str(n)), events=1_000_000)
                )
                for n in range(streams)
            ]
            await asyncio.sleep(SETTLE_S)
            alone = await share({"collector": collector}, seconds)
            with watching(stack) as (pid, screen):
                await asyncio.sleep(SETTLE_S)
                watched = await share({"top": pid, "collector": collector}, seconds)
                drawn = screen.bytes
                in_flight = await asyncio.to_thread(stack.total, "inferwatch_requests_in_flight")
            for task in tasks:
                task.cancel()
    print(f"{in_flight:.0f} streams open, {drawn // 1024} kB drawn, {seconds:.0f} s, share of a core:")
    print(f"  top                        {100 * watched['top']:5.2f} %")
    print(f"  collector, nobody looking  {100 * alone['collector']:5.2f} %")
    print(f"  collector, top looking     {100 * watched['collector']:5.2f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20.0)
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.streams, chosen.seconds))
