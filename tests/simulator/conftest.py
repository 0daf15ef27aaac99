"""Simulators to talk to."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.server import start
from inferwatch_simulator.testing import Serve, SimulatorClient


@pytest.fixture(name="serve")
async def _serve() -> AsyncIterator[Serve]:
    """Starts simulators, fast ones unless told otherwise; all are closed after the test."""
    running = []
    async with aiohttp.ClientSession() as session:

        async def serve(**options: Any) -> SimulatorClient:
            config = SimulatorConfig(**({"port": 0, "model": "tiny", "speed": 1000.0} | options))
            simulator = await start(config)
            running.append(simulator)
            return SimulatorClient(simulator, session)

        yield serve
    for simulator in running:
        await simulator.close()
