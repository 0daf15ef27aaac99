"""`inferwatch demo --scenario ...`: each shows on `/metrics` what it promises, and ends in good form."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stack import free_ports

from inferwatch_simulator.readings import Scrape, parse, total, values

# A scenario takes a minute at most until it shows what it is about; a machine under load, longer.
LIMIT_S = 120.0

LEARNING_S = 150.0
LENGTHS = ("prompt_tokens", "completion_tokens")

pytestmark = pytest.mark.timeout(300)


class Demo:
    """A running demo."""

    def __init__(self, folder: Path, scenario: str) -> None:
        self._admin = free_ports(1)[0]
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "inferwatch", "demo", "--scenario", scenario),
                *("--listen", "127.0.0.1:0", "--admin", f"127.0.0.1:{self._admin}"),
            ],
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "TMPDIR": str(folder)},
        )

    def until(self, shown: Callable[[Scrape], bool], limit_s: float = LIMIT_S) -> Scrape:
        """Wait until `/metrics` shows something."""
        deadline_s = time.monotonic() + limit_s
        while True:
            scrape = None
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://127.0.0.1:{self._admin}/metrics", timeout=10) as reply:
                    scrape = parse(reply.read().decode(), time.monotonic())
                if shown(scrape):
                    return scrape
            assert self._process.poll() is None, self.text
            assert time.monotonic() < deadline_s, f"not within {limit_s} s:\n{self.text}"
            time.sleep(0.5)

    def drift(self) -> dict[str, Any]:
        """Return what `/drift` says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._admin}/drift", timeout=10) as reply:
            return dict(json.load(reply))

    @property
    def text(self) -> str:
        return Path(self._log.name).read_text()

    def close(self) -> int:
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(30)
        self._log.close()
        return code


@pytest.fixture(name="demo")
def _demo(request: pytest.FixtureRequest) -> Iterator[Demo]:
    # Not pytest's: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as name:
        demo = Demo(Path(name), request.param)
        yield demo
        assert demo.close() == 0, demo.text
        assert "requests, " in demo.text.splitlines()[-1]
        assert list(Path(name).glob("inferwatch-demo-*")) == []


def shows(scenario: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("demo", [scenario], indirect=True)


def ttft_sum(scrape: Scrape) -> tuple[float, float]:
    name = "inferwatch_time_to_first_token_seconds"
    return total(scrape, f"{name}_sum"), total(scrape, f"{name}_count")


@shows("day")
def test_a_day_begins(demo: Demo) -> None:
    """Tenants by name, money, and a GPU that says that it is none."""
    scrape = demo.until(
        lambda scrape: (
            {"acme", "globex", "initech"} <= set(values(scrape, "inferwatch_requests_total", "tenant"))
            and total(scrape, "inferwatch_gpu_power_watts") > 0
            and total(scrape, "inferwatch_cost_dollars_total", basis="gpu") > 0
            and total(scrape, "inferwatch_cost_dollars_total", basis="price") > 0
        )
    )
    assert values(scrape, "inferwatch_gpu_power_watts", "gpu_model") == ["Simulated GPU (no hardware)"]
    assert "day: 06:00" in demo.text


@shows("steady")
def test_a_steady_hour(demo: Demo) -> None:
    """All four tenants from the start."""
    demo.until(lambda scrape: len(values(scrape, "inferwatch_requests_total", "tenant")) >= 4)


@shows("runaway")
def test_a_client_without_an_end(demo: Demo) -> None:
    """Its budget refuses it, and its tries are a signal of unusual spending."""
    demo.until(
        lambda scrape: (
            total(scrape, "inferwatch_requests_total", tenant="hooli", outcome="rejected") > 0
            and total(scrape, "inferwatch_spend_anomaly_signals_total", tenant="hooli", kind="retry_storm") > 0
        )
    )


@shows("budget")
def test_budgets_that_run_out(demo: Demo) -> None:
    """Of several tenants, and they come back."""

    def refused(scrape: Scrape) -> list[str]:
        return [
            tenant
            for tenant in values(scrape, "inferwatch_requests_total", "tenant")
            if total(scrape, "inferwatch_requests_total", tenant=tenant, outcome="rejected") > 5
        ]

    demo.until(lambda scrape: len(refused(scrape)) >= 2)


@shows("degraded")
def test_an_engine_that_is_slow(demo: Demo) -> None:
    """The first token takes longer, the GPU's clock is held down for heat; before, neither."""
    before = demo.until(lambda scrape: ttft_sum(scrape)[1] > 20)
    event = "inferwatch_gpu_clock_event_active"
    assert total(before, event, reason="hw_thermal") == 0
    began = demo.until(lambda scrape: total(scrape, event, reason="hw_thermal") == 1)
    after = demo.until(lambda scrape: ttft_sum(scrape)[1] > ttft_sum(began)[1] + 30)
    well = ttft_sum(before)[0] / ttft_sum(before)[1]
    ill = (ttft_sum(after)[0] - ttft_sum(began)[0]) / (ttft_sum(after)[1] - ttft_sum(began)[1])
    assert ill > 1.5 * well


@pytest.mark.timeout(700)
@shows("drift")
def test_prompts_that_change(demo: Demo) -> None:
    """A reference is learnt, then the change is found, at the stated rate of false signals; before, nothing is. What has
    moved are lengths: prompts and answers are four times as long."""
    detected = "inferwatch_drift_detected"
    pinned = demo.until(lambda scrape: bool(scrape.samples.get(detected)), LEARNING_S + LIMIT_S)
    assert total(pinned, detected) == 0
    demo.until(lambda scrape: total(scrape, detected, tenant="acme") == 1, LEARNING_S + LIMIT_S)
    (acme,) = (each for each in demo.drift()["streams"] if each["tenant"] == "acme")
    assert acme["state"] == "drifted"
    assert acme["moved"][0]["feature"] in LENGTHS
    assert not set(LENGTHS) & set(acme["off"])
