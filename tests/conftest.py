"""Shared by all tests: nothing blocks an event loop, properties are reproducible, ports and state folders are free."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster
from hypothesis import settings

# `fast` is for every run: few examples, the same ones each time. `deep` is for a night: HYPOTHESIS_PROFILE=deep.
settings.register_profile("fast", max_examples=60, deadline=None, derandomize=True, database=None)
settings.register_profile("deep", max_examples=5_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# Only our own code is held to it: a test may well block its loop for a moment.
_OURS = ["inferwatch", "inferwatch_collectors"]


@pytest.fixture(autouse=True)
def _never_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """A blocking call of ours inside an event loop fails the test."""
    if request.node.get_closest_marker("asyncio") is None:
        yield
        return
    guard = BlockBuster(_OURS)
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()


@pytest.fixture(name="free_port")
def _free_port() -> Callable[[], int]:
    """Ask for a loopback TCP port that nobody listens on."""

    def free_port() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    return free_port


@pytest.fixture(name="state_dir")
def _state_dir(tmp_path: Path) -> Path:
    """An empty folder for ledger, spool and sockets (Unix socket paths must be short: keep names in it short)."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder
