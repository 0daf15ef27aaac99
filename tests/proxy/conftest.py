"""Fixtures for tests that start real processes: a scripted engine on loopback, and `inferwatch serve` before it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

sys.path.insert(
    0, str(Path(__file__).parent)
)  # importlib mode keeps the folder off the path; `serving` lies beside this

from serving import FAKE_COLLECTOR, Engine, Serve


@pytest.fixture(name="engine")
async def _engine() -> AsyncIterator[Engine]:
    engine = Engine()
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture(name="serve")
async def _serve(engine: Engine, tmp_path: Path) -> AsyncIterator[Callable[..., Serve]]:
    """Make a `Serve` before the scripted engine; whatever of it is left at the end is killed."""
    modules = tmp_path / "modules" / "inferwatch_collectors"
    modules.mkdir(parents=True)
    (modules / "__init__.py").touch()
    (modules / "__main__.py").write_text(FAKE_COLLECTOR, encoding="utf-8")
    started: list[Serve] = []

    def make(*flags: str, collector: str = "fake", **environ: str) -> Serve:
        if collector != "real":
            environ["PYTHONPATH"] = str(modules.parent)
            environ["FAKE_COLLECTOR"] = collector
        flags = ("--upstream", f"http://127.0.0.1:{engine.port}", "--engine", "unknown", *flags)
        started.append(Serve(tmp_path / f"state-{len(started)}", flags, environ))
        return started[-1]

    yield make
    for each in started:
        await each.kill()
