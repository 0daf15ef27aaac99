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
from otlp_receiver import Received, grpc_receiver, http_receiver

# Few slots, so that sixteen clients queue as they do on a busy engine; the parser is needed for automatic tool calls.
VLLM_FLAGS = ("--max-num-seqs", "8", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")

# One slot: of several requests at once all but one queue. The flag adds `metrics` to every usage, so this engine is not
# the one that most files share.
TIMED_FLAGS = ("--max-num-seqs", "1", "--enable-per-request-metrics")

# vLLM's own spans leave it soon enough to be waited for.
EXPORT_VARIABLES = {"OTEL_BSP_SCHEDULE_DELAY": "200"}

_FIGURES = pytest.StashKey[Figures]()


@pytest.fixture(scope="session")
def http_spans() -> Iterator[tuple[str, Received]]:
    """Where spans go over HTTP: (base URL, what came)."""
    with http_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def grpc_spans() -> Iterator[tuple[str, Received]]:
    """Where spans go over gRPC: (base URL, what came)."""
    with grpc_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, http_spans: tuple[str, Received]) -> Iterator[Engine]:
    """A real vLLM, started once; it exports its spans over HTTP."""
    if url := os.environ.get("INFERWATCH_TEST_VLLM"):
        yield Engine(url.rstrip("/"))
        return
    yield from _started(request, VLLM_FLAGS, f"{http_spans[0]}/v1/traces", "http/protobuf")


@pytest.fixture(scope="session")
def timed_engine(request: pytest.FixtureRequest, grpc_spans: tuple[str, Received]) -> Iterator[Engine]:
    """One that tells the times of each request in its answer, and exports its spans over gRPC."""
    if os.environ.get("INFERWATCH_TEST_VLLM"):
        pytest.skip("needs an engine of its own, with --enable-per-request-metrics")
    yield from _started(request, TIMED_FLAGS, grpc_spans[0], "grpc")


def _started(request: pytest.FixtureRequest, flags: tuple[str, ...], endpoint: str, protocol: str) -> Iterator[Engine]:
    """Start vLLM; the wait for it shows on the terminal."""
    if not is_provisioned():
        pytest.fail("no vLLM here: run make test-engines, which installs it")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    variables = EXPORT_VARIABLES | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": protocol}
    with contextlib.ExitStack() as stack:
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            vllm = running_vllm(*flags, "--otlp-traces-endpoint", endpoint, variables=variables)
            url = stack.enter_context(vllm)
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
