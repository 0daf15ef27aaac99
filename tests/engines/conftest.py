"""One vLLM and one Inferwatch per session, and a table of measured figures at the end.

INFERWATCH_TEST_VLLM   base URL of a running vLLM that serves the tiny model (else one is started)
INFERWATCH_TEST_PROXY  base URL of a running proxy in front of it (else Inferwatch is started)
INFERWATCH_TEST_ADMIN  its admin URL; with a foreign proxy and no admin URL, tests of the books are skipped
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode keeps the folder off the path; helpers live beside this

from engine_process import Engine, Figures, Proxy, is_provisioned, running_inferwatch, running_vllm

# Few slots, so that sixteen clients queue as they do on a busy engine; the parser is needed for automatic tool calls.
VLLM_FLAGS = ("--max-num-seqs", "8", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")

_FIGURES = pytest.StashKey[Figures]()


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A real vLLM, started once; the wait for it shows on the terminal."""
    if url := os.environ.get("INFERWATCH_TEST_VLLM"):
        yield Engine(url.rstrip("/"))
        return
    if not is_provisioned():
        pytest.fail("no vLLM here: run make test-engines, which installs it")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with contextlib.ExitStack() as stack:
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            url = stack.enter_context(running_vllm(*VLLM_FLAGS))
        yield Engine(url)


@pytest.fixture(scope="session")
def proxy(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Inferwatch in front of the engine, with default settings and an empty state folder."""
    if url := os.environ.get("INFERWATCH_TEST_PROXY"):
        yield Proxy(url.rstrip("/"), os.environ.get("INFERWATCH_TEST_ADMIN"))
        return
    with running_inferwatch(engine.url, tmp_path_factory.mktemp("state")) as (url, admin_url):
        yield Proxy(url, admin_url)


@pytest.fixture(scope="session")
def books(proxy: Proxy) -> str:
    """The admin URL whose /metrics holds the books."""
    if proxy.admin_url is None:
        pytest.skip("INFERWATCH_TEST_PROXY is set without INFERWATCH_TEST_ADMIN")
    return proxy.admin_url


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Figures:
    """Measured figures as (what, value); printed when the session ends."""
    return request.config.stash.setdefault(_FIGURES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if found := config.stash.get(_FIGURES, []):
        terminalreporter.section("measured against a real vLLM")
        width = max(len(what) for what, _ in found)
        for what, value in found:
            terminalreporter.write_line(f"{what:<{width}}  {value}")
