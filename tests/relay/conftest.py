"""A relay to talk to, on the loop it runs on in production."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode keeps the folder off the path; helpers live beside this

from harness import Engine, Rig, Start, configured


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """uvloop, as in production; INFERWATCH_TEST_LOOP=asyncio runs the same tests on the other."""
    if os.environ.get("INFERWATCH_TEST_LOOP") == "asyncio":
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(name="start")
async def _start() -> AsyncIterator[Start]:
    """Starts relays; the books of each are checked at the end: one Close per request, every byte counted."""
    rigs: list[Rig] = []
    async with contextlib.AsyncExitStack() as stack:

        async def start(*, tls: Any = None, client_tls: Any = None, engine_tls: Any = None, **sections: Any) -> Rig:
            engine = Engine()
            await engine.start(engine_tls)
            scheme = "https" if engine_tls else "http"
            host = "localhost" if engine_tls else "127.0.0.1"
            upstream = {"url": f"{scheme}://{host}:{engine.port}", "engine": "unknown"} | sections.pop("upstream", {})
            rig = Rig(configured(upstream=upstream, **sections), engine, client_tls)
            await rig.start(tls)
            stack.push_async_callback(rig.stop)
            rigs.append(rig)
            return rig

        yield start
    for rig in rigs:
        rig.tap.check()


@pytest.fixture(name="rig")
async def _rig(start: Start) -> Rig:
    """A relay with default settings before an engine that is asked for nothing."""
    return await start()


@pytest.fixture(name="vllm")
async def _vllm(start: Start) -> Rig:
    """A relay that asks its engine for usage."""
    return await start(upstream={"engine": "vllm"})
