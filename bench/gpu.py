"""On a host with an NVIDIA GPU: what Inferwatch says of it, beside what nvidia-smi and the driver say themselves.

    python -m bench.gpu --out DIR

Starts an engine that computes (bench/gpu_engine.py), Inferwatch before it, and phases of load from nothing to a full
batch. In each phase nvidia-smi is read once a second beside our own scrapes, and the driver's energy counter is read at
its ends by a process that is not Inferwatch. Records captures of the idle and of the loaded GPU. Writes DIR/gpu.json,
DIR/gpu.md and the captures. With `--device cpu` all but the GPU can be tried anywhere.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import structlog

from inferwatch_simulator.readings import Scrape, parse, total

ENGINE_PORT, PORT, ADMIN_PORT = 18000, 18080, 18480
START_S = 90.0
# The driver renews power, utilisation and its energy counter about every 100 ms; a scrape shows the last reading, up
# to a second old. A phase's ends are taken this long after its load has changed.
SETTLE_S = 2.0

CONFIG = """
cost: {hourly_dollars: 3.5}
energy: {pue: 1.3, grid_gco2e_per_kwh: 380}
attribution: {weights: learned}
log: {requests: false}
"""

FIELDS = ("power.draw.average", "utilization.gpu", "memory.used", "temperature.gpu", "clocks.sm")
OURS = {
    "power.draw.average": ("inferwatch_gpu_power_watts", 1.0, {}),
    "utilization.gpu": ("inferwatch_gpu_utilization_ratio", 100.0, {}),
    "memory.used": ("inferwatch_gpu_memory_used_bytes", 1 / 2**20, {}),
    "temperature.gpu": ("inferwatch_gpu_temperature_celsius", 1.0, {}),
    "clocks.sm": ("inferwatch_gpu_clock_hertz", 1e-6, {"clock": "sm"}),
}


class Phase(NamedTuple):
    """Some seconds of load: so many clients, each asking again as soon as it is answered."""

    name: str
    clients: int
    prompt_words: int
    max_tokens: int
    seconds: float


PHASES = (
    Phase("no requests", 0, 0, 0, 10),
    Phase("one chat", 1, 200, 256, 15),
    Phase("32 chats", 32, 200, 256, 25),
    Phase("64 short answers to long prompts", 64, 1100, 16, 25),
)


def scrape() -> Scrape:
    """Read our metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN_PORT}/metrics", timeout=10) as reply:
        return parse(reply.read().decode(), time.monotonic())


def smi() -> dict[str, float]:
    """Read nvidia-smi once."""
    command = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits", "--id=0"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: float(value) for name, value in zip(FIELDS, text.split(","), strict=True)}


def counter_j() -> float:
    """The driver's energy counter, asked for by a process of its own."""
    code = (
        "import pynvml as n; n.nvmlInit(); "
        "print(n.nvmlDeviceGetTotalEnergyConsumption(n.nvmlDeviceGetHandleByIndex(0)))"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return float(text) / 1000


@contextlib.contextmanager
def process(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command beside us."""
    with log.open("ab") as out:
        child = subprocess.Popen([sys.executable, "-m", *command], stdout=out, stderr=out)
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()


def wait_for(url: str) -> None:
    """Wait until `url` answers 200."""
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as reply:
            if reply.status == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"{url} did not answer within {START_S:.0f} s")


async def load(phase: Phase) -> int:
    """Send the load of a phase; return how many requests were answered."""
    done = 0
    end_s = time.monotonic() + phase.seconds

    async def ask(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal done
        while time.monotonic() < end_s:
            text = f"{number} {time.monotonic_ns()} " + "word " * phase.prompt_words  # no prefix of another's
            body = {
                "model": "random-8b",
                "stream": number % 2 == 0,
                "ignore_eos": True,
                "max_tokens": phase.max_tokens,
                "messages": [{"role": "user", "content": text}],
            }
            headers = {"authorization": f"Bearer key-{number % 4}"}
            url = f"http://127.0.0.1:{PORT}/v1/chat/completions"
            async with session.post(url, json=body, headers=headers) as reply:
                reply.raise_for_status()
                await reply.read()
            done += 1

    timeout, connector = aiohttp.ClientTimeout(total=120), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session, asyncio.TaskGroup() as group:
        for number in range(phase.clients):
            group.create_task(ask(session, number))
        if not phase.clients:
            await asyncio.sleep(phase.seconds)
    return done


async def watch(readings: list[tuple[dict[str, float], Scrape]], enough: asyncio.Event) -> None:
    """Read both sides once a second, one right after the other."""
    while not enough.is_set():
        theirs = await asyncio.to_thread(smi)
        readings.append((theirs, await asyncio.to_thread(scrape)))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(enough.wait(), 1.0)


def accounted(before: Scrape, after: Scrape) -> dict[str, float]:
    """What Inferwatch booked between two scrapes."""

    def grown(name: str, **where: str) -> float:
        return total(after, name, **where) - total(before, name, **where)

    requests, idle = grown("inferwatch_energy_joules_total"), grown("inferwatch_idle_energy_joules_total")
    prompt = grown("inferwatch_tokens_total", type="prompt")
    completion = grown("inferwatch_tokens_total", type="completion")
    booked = grown("inferwatch_requests_total")
    return {
        "counter_j": grown("inferwatch_gpu_energy_joules_total"),
        "requests_j": requests,
        "idle_j": idle,
        "requests": booked,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "j_per_request": requests / booked if booked else 0.0,
        "j_per_token": requests / (prompt + completion) if booked else 0.0,
        "sampler_cpu_s": grown("inferwatch_gpu_sampler_cpu_seconds_total"),
        "sample_s": total(after, "inferwatch_gpu_sample_duration_seconds"),
    }


async def measure(phase: Phase, *, gpu: bool) -> dict[str, Any]:
    """Run one phase and return its figures."""
    before = scrape()
    driver_before = counter_j() if gpu else 0.0
    started_s = time.monotonic()
    readings: list[tuple[dict[str, float], Scrape]] = []
    enough = asyncio.Event()
    watching = asyncio.get_running_loop().create_task(watch(readings, enough)) if gpu else None
    answered = await load(phase)
    enough.set()
    if watching is not None:
        await watching
    await asyncio.sleep(SETTLE_S)
    driver_after = counter_j() if gpu else 0.0
    figures: dict[str, Any] = {
        "phase": phase.name,
        "seconds": time.monotonic() - started_s,
        "answered": answered,
        "driver_counter_j": driver_after - driver_before,
        "inferwatch": accounted(before, scrape()),
    }
    for name in FIELDS if gpu else ():
        series, factor, where = OURS[name]
        figures[name] = {
            "nvidia_smi": statistics.median(theirs[name] for theirs, _ in readings[2:]),
            "inferwatch": statistics.median(total(ours, series, **where) * factor for _, ours in readings[2:]),
        }
    return figures


def capture(file: Path) -> None:
    """Record what the driver says."""
    subprocess.run([sys.executable, "-m", "inferwatch", "doctor", "--capture", str(file)], check=True)


def table(phases: list[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| | " + " | ".join(each["phase"] for each in phases) + " |", "|---" * (len(phases) + 1) + "|"]

    def row(name: str, cells: list[str]) -> None:
        lines.append(f"| {name} | " + " | ".join(cells) + " |")

    for field in FIELDS:
        if field in phases[0]:
            pairs = [each[field] for each in phases]
            row(f"{field}, nvidia-smi / ours", [f"{p['nvidia_smi']:.0f} / {p['inferwatch']:.0f}" for p in pairs])
    row("energy of the driver's counter, J", [f"{each['driver_counter_j']:,.1f}" for each in phases])
    ours = [each["inferwatch"] for each in phases]
    row("our counter's growth, J", [f"{each['counter_j']:,.1f}" for each in ours])
    row("requests + idle, J", [f"{each['requests_j']:,.1f} + {each['idle_j']:,.1f}" for each in ours])
    row("requests", [f"{each['requests']:,.0f}" for each in ours])
    row("tokens, prompt + completion", [f"{e['prompt_tokens']:,.0f} + {e['completion_tokens']:,.0f}" for e in ours])
    row("J per request", [f"{each['j_per_request']:,.1f}" if each["requests"] else "" for each in ours])
    row("J per token, prompt and completion", [f"{e['j_per_token']:.3f}" if e["requests"] else "" for e in ours])
    row("the last reading of the GPU, ms", [f"{1e3 * each['sample_s']:.1f}" for each in ours])
    seconds = [each["seconds"] for each in phases]
    cpu = [f"{1e3 * e['sampler_cpu_s'] / s:.1f}" for e, s in zip(ours, seconds, strict=True)]
    row("CPU for readings, ms a second", cpu)
    return "\n".join(lines) + "\n"


async def run(out: Path, device: str) -> list[dict[str, Any]]:
    """Run all phases; captures beside them."""
    gpu = device != "cpu"
    log = out / "log.txt"
    if gpu:
        capture(out / "idle.json")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG)
        stack.enter_context(process(log, "bench.gpu_engine", "--port", str(ENGINE_PORT), "--device", device))
        wait_for(f"http://127.0.0.1:{ENGINE_PORT}/health")
        flags = ("--listen", f"127.0.0.1:{PORT}", "--admin", f"127.0.0.1:{ADMIN_PORT}", "--config", str(config))
        upstream = ("--upstream", f"http://127.0.0.1:{ENGINE_PORT}", "--state-dir", f"{folder}/state")
        stack.enter_context(process(log, "inferwatch", "serve", *upstream, *flags))
        wait_for(f"http://127.0.0.1:{ADMIN_PORT}/readyz")
        await load(Phase("warm-up", 4, 50, 16, 3))
        await asyncio.sleep(SETTLE_S)
        figures = [await measure(phase, gpu=gpu) for phase in PHASES]
        if gpu:
            busy = asyncio.get_running_loop().create_task(load(PHASES[2]._replace(seconds=10)))
            await asyncio.sleep(3)
            await asyncio.to_thread(capture, out / "loaded.json")
            await busy
        (out / "metrics.txt").write_text(
            urllib.request.urlopen(f"http://127.0.0.1:{ADMIN_PORT}/metrics", timeout=10).read().decode()
        )
    return figures


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a try without a GPU")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    figures = asyncio.run(run(options.out, options.device))
    (options.out / "gpu.json").write_text(json.dumps(figures, indent=1) + "\n")
    (options.out / "gpu.md").write_text(table(figures))
    sys.stdout.write(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
