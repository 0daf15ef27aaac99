"""A GPU (played by the stand-in) under the real Inferwatch: its metrics, and every joule accounted for."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stack import Stack, chat, client, running, send, wait_until

from inferwatch_simulator.readings import total

ENERGY = "0/nvmlDeviceGetFieldValues/83"
INTERVAL_S = 0.2
STEP_MJ = 37_011  # a fifth of a second at some 185 W; no round number


class Meter:
    """The file from which the stand-in reads, with a counter that goes up five times a second."""

    def __init__(self, path: Path, script: Callable[..., bytes], frames: list[dict[str, Any]]) -> None:
        self._path, self._script, self._frames = path, script, frames
        self._energy_mj = 5_000_000
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._write()

    def _write(self) -> None:
        text = self._script(*self._frames, {"calls": {ENERGY: self._energy_mj}})
        beside = self._path.with_suffix(".new")
        beside.write_bytes(text)
        beside.replace(self._path)  # never half of it

    def _run(self) -> None:
        while not self._enough.wait(INTERVAL_S):
            self._energy_mj += STEP_MJ
            self._write()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._enough.set()
        if self._thread.ident is not None:
            self._thread.join()


@pytest.fixture(name="metered")
def _metered(
    tmp_path: Path, stub_script: Any, frames: Any, stub_library: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Stack, Meter]]:
    answers = tmp_path / "answers"
    meter = Meter(answers, stub_script, frames("h100_idle"))
    monkeypatch.setenv("NVML_STUB_FILE", str(answers))
    monkeypatch.setenv("INFERWATCH__GPU__NVML_LIBRARY", stub_library)
    monkeypatch.setenv("INFERWATCH__GPU__INTERVAL_S", str(INTERVAL_S))
    try:
        with running(tmp_path) as stack:
            yield stack, meter
    finally:
        meter.stop()


async def generate(stack: Stack, requests: int) -> None:
    async with client() as session, asyncio.TaskGroup() as group:
        for number in range(requests):
            group.create_task(send(session, stack.url, chat(stream=number % 2 == 0, max_tokens=200)))


def test_every_joule_of_the_counter_is_a_requests_or_idle(metered: tuple[Stack, Meter]) -> None:
    """The GPU is up with its readings; energy of requests and of idling add up to the counter's growth, exactly."""
    stack, meter = metered
    wait_until(lambda: stack.total("inferwatch_gpu_up") == 1, "the GPU")
    assert stack.total("inferwatch_gpu_power_watts") > 0
    assert stack.total("inferwatch_gpu_memory_total_bytes") > 0
    meter.start()
    asyncio.run(generate(stack, 24))
    meter.stop()

    def accounted() -> bool:
        scrape = stack.scrape()
        counted = total(scrape, "inferwatch_gpu_energy_joules_total")
        requests = total(scrape, "inferwatch_energy_joules_total")
        idle = total(scrape, "inferwatch_idle_energy_joules_total")
        found[:] = [counted, requests, idle]
        return requests > 0 and counted > 0 and round((requests + idle - counted) * 1e6) == 0

    found: list[float] = []
    wait_until(accounted, "all energy", 30, lambda: f"counter, requests, idle: {found}")


def test_a_gpu_that_goes_away_is_down_and_traffic_goes_on(metered: tuple[Stack, Meter]) -> None:
    """Its last readings are not shown for ever, and requests are answered as before."""
    stack, _ = metered
    wait_until(lambda: stack.total("inferwatch_gpu_up") == 1, "the GPU")
    Path(os.environ["NVML_STUB_FILE"]).write_bytes(b"0/*\t15\t0\n/nvmlDeviceGetCount\t0\t0\t1")

    wait_until(lambda: "inferwatch_gpu_power_watts" not in stack.scrape().samples, "no reading", 30)
    assert stack.total("inferwatch_gpu_up") == 0
    asyncio.run(generate(stack, 2))
    stack.settled(2)
