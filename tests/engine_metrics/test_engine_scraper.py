"""Fetching an engine's metrics: where they are, and what may go wrong, each with its word."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from inferwatch_collectors.engine.scraper import ScrapeError, Scraper, Target

TEXT = b"vllm:prompt_tokens_total 3\n"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Engine:
    """Answers by path; what is not there is 404. `asked` has the paths in order."""

    def __init__(self) -> None:
        self.answers: dict[str, Handler] = {}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    def text(self, path: str = "/metrics", body: bytes = TEXT, **changes: object) -> None:
        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            fields: dict[str, object] = {"body": body, "headers": {"content-type": "text/plain; version=1.0.0"}}
            return web.Response(**fields | changes)  # type: ignore[arg-type]

        self.answers[path] = answer

    def models(self, owner: str) -> None:
        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            return web.json_response({"object": "list", "data": [{"id": "m", "owned_by": owner}]})

        self.answers["/v1/models"] = answer

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        answer = self.answers.get(request.path)
        if answer is None:
            return web.json_response({"detail": "Not Found"}, status=404)
        return await answer(request)


async def _served(engine: Engine, tls: ssl.SSLContext | None = None) -> web.ServerRunner:
    runner = web.ServerRunner(web.Server(engine.handle))  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    engine.url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
    return runner


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    runner = await _served(engine)
    yield engine
    await runner.cleanup()


async def fetched(served: Engine, **changes: object) -> bytes:
    scraper = Scraper(Target(**{"upstream_url": served.url, **changes}))  # type: ignore[arg-type]
    try:
        return await scraper.fetch()
    finally:
        await scraper.close()


async def reason(served: Engine, **changes: object) -> str:
    with pytest.raises(ScrapeError) as caught:
        await fetched(served, **changes)
    return caught.value.reason


async def test_most_engines(engine: Engine) -> None:
    """Prometheus text at /metrics is found; nothing compressed is asked for."""
    engine.text()
    engine.models("vllm")
    assert await fetched(engine) == TEXT
    assert engine.headers[-1]["accept-encoding"] == "identity"


async def test_found_once(engine: Engine) -> None:
    """Where the metrics are is looked up at the first scrape, and again only after one failed."""
    engine.text()
    scraper = Scraper(Target(upstream_url=engine.url))
    for _ in range(3):
        await scraper.fetch()
    assert engine.asked == ["/prometheus/metrics", "/v1/models", "/metrics", "/metrics", "/metrics"]
    scraper.lost()
    await scraper.fetch()
    assert engine.asked[5:] == ["/prometheus/metrics", "/v1/models", "/metrics"]
    await scraper.close()


async def test_a_configured_vllm(engine: Engine) -> None:
    """What is configured to be vLLM is asked for nothing else."""
    engine.text()
    await fetched(engine, engine="vllm")
    assert engine.asked == ["/metrics"]


async def test_trtllm(engine: Engine) -> None:
    """The JSON at trtllm-serve's /metrics, which reading empties, is never asked for."""
    engine.text("/prometheus/metrics")
    engine.models("tensorrt_llm")
    assert await fetched(engine) == TEXT
    assert "/metrics" not in engine.asked


async def test_trtllm_without_metrics(engine: Engine) -> None:
    """Nor where it has no Prometheus text: then it has no metrics for us."""
    engine.models("tensorrt_llm")
    assert await reason(engine) == "no_metrics"
    assert "/metrics" not in engine.asked


async def test_a_configured_address(engine: Engine) -> None:
    """A whole URL is taken as it is, with its query."""
    engine.text("/else/where")
    assert await fetched(engine, url=f"{engine.url}/else/where?x=1") == TEXT
    assert engine.asked == ["/else/where"]


async def test_a_mounted_path(engine: Engine) -> None:
    """A redirect to the path with a slash is followed."""
    engine.text("/metrics/")
    engine.answers["/metrics"] = lambda _: _redirect("/metrics/")
    assert await fetched(engine) == TEXT


async def _redirect(place: str) -> web.StreamResponse:
    return web.Response(status=307, headers={"location": place})


async def test_redirects_have_an_end(engine: Engine) -> None:
    """One that goes round in circles does not."""
    engine.answers["/metrics"] = lambda _: _redirect("/metrics")
    assert await reason(engine) == "connect"
    assert len(engine.asked) < 6


@pytest.mark.parametrize("models", [b"", b"nonsense", b"[]", b'{"data":7}', b"[" * 100_000, b"\xff"])
async def test_an_odd_list_of_models(engine: Engine, models: bytes) -> None:
    """Whatever /v1/models says, an engine that is not known to be TensorRT-LLM is asked."""
    engine.text()
    engine.text("/v1/models", models)
    assert await fetched(engine) == TEXT


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": 404}, "status"),
        ({"status": 500}, "status"),
        ({"headers": {"content-type": "application/json"}}, "not_text"),
        ({"headers": {"content-type": "text/html"}}, "not_text"),
        ({"headers": {"content-type": "text/plain", "content-encoding": "gzip"}}, "not_text"),
        ({"body": b"x" * 5_001}, "too_large"),
    ],
)
async def test_what_is_no_metrics(engine: Engine, changes: dict[str, object], expected: str) -> None:
    """Each way to give no metrics has its reason."""
    engine.text(**changes)  # type: ignore[arg-type]
    assert await reason(engine, max_bytes=5_000) == expected


async def test_an_endless_answer(engine: Engine) -> None:
    """An answer without an end is read up to the bound and no further."""
    sent = 0

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"content-type": "text/plain"})
        await response.prepare(request)
        while sent < 1 << 30:
            await response.write(b"x" * 65_536)
            sent += 65_536
        return response

    engine.answers["/metrics"] = endless
    assert await reason(engine, max_bytes=100_000) == "too_large"
    assert sent < 1 << 27


async def test_an_answer_that_breaks_off(engine: Engine) -> None:
    """Half an answer is none."""

    async def half(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/plain", "content-length": "100"})
        await response.prepare(request)
        await response.write(TEXT)
        assert request.transport is not None
        request.transport.abort()
        return response

    engine.answers["/metrics"] = half
    assert await reason(engine) == "connect"


async def test_no_answer(engine: Engine) -> None:
    """An engine that does not answer costs no more than the time limit."""
    waiting = asyncio.Event()

    async def hang(_: web.BaseRequest) -> web.StreamResponse:
        await waiting.wait()
        return web.Response()

    engine.answers["/metrics"] = hang
    assert await reason(engine, timeout_s=0.2) == "timeout"
    waiting.set()


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://nowhere.invalid:1"])
async def test_nobody_there(free_port: Callable[[], int], url: str) -> None:
    """Nobody listens, or the name cannot be resolved: no connection."""
    engine = Engine()
    engine.url = url.format(port=free_port())
    assert await reason(engine) == "connect"


async def test_tls(tmp_path: Path) -> None:
    """An https engine is trusted by the configured CA, or unchecked, and not otherwise."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    engine = Engine()
    engine.text()
    runner = await _served(engine, context)
    try:
        assert await fetched(engine, tls_ca_file=str(ca_file)) == TEXT
        assert await fetched(engine, tls_verify=False) == TEXT
        assert await reason(engine) == "connect"
    finally:
        await runner.cleanup()
