"""The GPU of the simulator, as the collector reads it."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from inferwatch_collectors.gpu.base import GpuLostError, SourceUnavailableError
from inferwatch_collectors.gpu.simulated import PATH, SimulatedSource
from inferwatch_simulator.gpus import NAME, SimulatedGpu


class Simulator(BaseHTTPRequestHandler):
    """Says what the server's `reply` holds."""

    def do_GET(self) -> None:
        server: Any = self.server
        status, body = server.reply if self.path == PATH else (404, b"")
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture(name="simulator")
def _simulator() -> Iterator[Any]:
    with HTTPServer(("127.0.0.1", 0), Simulator) as server:
        reading = SimulatedGpu(0.0).read(1.0, busy_s=0.5, batch=8, cache=0.25, speed=0.5)
        server.reply = (200, json.dumps(reading).encode())  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_it_reads_what_the_simulator_says(simulator: Any) -> None:
    """And is a simulated one by name and by vendor, so that nobody takes it for hardware."""
    (device,) = SimulatedSource(f"http://user:secret@127.0.0.1:{simulator.server_port}").open()
    assert (device.identity.model, device.identity.vendor) == (NAME, "simulated")
    sample = device.sample(7)
    assert sample.stamp_ns == 7
    assert sample.utilization_ratio == 0.5
    assert sample.power_mw is not None
    assert sample.counters.energy_mj == sample.power_mw  # of one second
    assert sample.clock_events == {"hw_thermal"}
    assert sample.temperature_c == 91


@pytest.mark.parametrize("reply", [(404, b""), (500, b"{}"), (200, b"<html>"), (200, b"[]"), (200, b"{}")])
def test_another_engine_simulates_no_gpu(simulator: Any, reply: tuple[int, bytes]) -> None:
    """Said in a line, once; a GPU that was there is lost."""
    source = SimulatedSource(f"http://127.0.0.1:{simulator.server_port}")
    (device,) = source.open()
    simulator.reply = reply
    with pytest.raises(SourceUnavailableError, match="simulates no GPU"):
        source.open()
    with pytest.raises(GpuLostError):
        device.sample(0)
    assert list(source.events()) == []
