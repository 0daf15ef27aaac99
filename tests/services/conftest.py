"""A Redis, or a world of alerts, for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from world import World, worlds

from .redis_server import RedisServer


@pytest.fixture(name="redis_server")
def _redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture(name="make_world")
def _make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    with worlds(tmp_path) as make:
        yield make
