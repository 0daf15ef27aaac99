"""probing and asking: who is asked what and when, and what becomes of each answer an engine can give."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer

from inferwatch import canary
from inferwatch.settings.canary import Canary
from inferwatch_collectors import metrics as m
from inferwatch_collectors.canary.asking import Asker, body_of, data_url
from inferwatch_collectors.canary.logprobs import UnreadableError
from inferwatch_collectors.canary.probing import MAX_PAUSE_S, Probing
from inferwatch_collectors.canary.prompts import PROMPTS
from inferwatch_collectors.canary.watch import CanaryWatch
from inferwatch_collectors.metric_store import MetricStore

SECRET = b"a secret of the installation"
TOPS = {" Paris": -0.25, " the": -2.5, " a": -3.0, " in": -3.5, " not": -4.0}
ENABLED = Canary(enabled=True)


def completion(tops: Any = TOPS) -> web.Response:
    return web.json_response({"choices": [{"text": " Paris", "logprobs": {"top_logprobs": [tops]}}]})


class Engine:
    """What stands behind our data port: answers as `answer` says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[], Awaitable[web.StreamResponse]] = self.fine
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.server = TestServer(self.app())

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._handle)
        return app

    async def fine(self) -> web.StreamResponse:
        return completion()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append({"path": request.path, **json.loads(await request.read())})
        self.headers.append(request.headers)
        return await self.answer()


@pytest.fixture(name="engine")
async def _engine() -> AsyncIterator[Engine]:
    engine = Engine()
    await engine.server.start_server()
    yield engine
    await engine.server.close()


class Around:
    """`probing.Conditions`."""

    def __init__(self) -> None:
        self.hindrance = ""
        self.models: Sequence[str] = ("m", "an-adapter")

    def hindered(self) -> str:
        return self.hindrance

    def served(self) -> Sequence[str]:
        return self.models

    def engine(self) -> str:
        return "vllm"


class Site:
    """A canary before an engine."""

    def __init__(self, engine: Engine, settings: Canary = ENABLED) -> None:
        self.store = MetricStore()
        self.watch = CanaryWatch(self.store, settings, secret=SECRET, around=lambda _: {})
        self.watch.resume(1.0, 1.76e9)
        self.around = Around()
        self.faults: list[str] = []
        url = f"http://127.0.0.1:{engine.server.port}"
        self.asker = Asker(settings, url, secret=SECRET, key="a key of the engine")
        self.probing = Probing(self.watch, self.asker, self.around, self.faults.append)

    def count(self, result: str, model: str = "m") -> int:
        return int(self.store.counter(m.CANARY_PROBES, (model, result)).value)


@pytest.fixture(name="site")
async def _site(engine: Engine) -> AsyncIterator[Site]:
    site = Site(engine)
    yield site
    await site.asker.close()


async def test_one_token_is_asked_for_and_the_tenant_is_proved(site: Site, engine: Engine) -> None:
    """Each prompt in turn, of the first model that the engine lists; the engine's key goes with it."""
    for _ in range(len(PROMPTS) + 1):
        await site.probing.probe()
    assert [each["prompt"] for each in engine.asked] == [*PROMPTS, PROMPTS[0]]
    assert engine.asked[0] == {
        "path": "/v1/completions",
        "model": "m",
        "prompt": PROMPTS[0],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 5,
    }
    assert engine.headers[0]["x-inferwatch-canary"] == canary.proof(SECRET)
    assert engine.headers[0]["authorization"] == "Bearer a key of the engine"
    assert site.count("ok") == len(PROMPTS) + 1
    assert not site.faults


def test_nothing_is_sent_that_the_engine_is_not_known_to_take() -> None:
    """`priority` only to vLLM, and only if it is configured."""
    low = Canary(priority=100, api="chat", top_logprobs=10)
    body = body_of(low, "m", "Hi", "vllm")
    assert body["priority"] == 100
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert (body["logprobs"], body["top_logprobs"]) == (True, 10)
    assert "priority" not in body_of(low, "m", "Hi", "sglang")
    assert "priority" not in body_of(low, "m", "Hi", "")
    assert "priority" not in body_of(ENABLED, "m", "Hi", "vllm")


@pytest.mark.parametrize(
    ("host", "port", "tls", "url"),
    [
        ("0.0.0.0", 8080, False, "http://127.0.0.1:8080"),
        ("::", 8080, False, "http://[::1]:8080"),
        ("::1", 8080, True, "https://[::1]:8080"),
        ("10.0.0.5", 443, True, "https://10.0.0.5:443"),
        ("localhost", 8080, False, "http://localhost:8080"),
        ("", 8080, False, "http://127.0.0.1:8080"),
        ("0.0.0.0", 0, False, ""),
    ],
)
def test_where_our_own_port_is(host: str, port: int, tls: bool, url: str) -> None:
    """What listens everywhere is asked on the loopback."""
    assert data_url(host, port, tls=tls) == url


@pytest.mark.parametrize("reason", ["busy", "draining", "down", "no_port"])
async def test_it_never_starts_where_it_would_be_in_the_way(site: Site, engine: Engine, reason: str) -> None:
    """Nothing is sent; the next turn asks what this one would have."""
    site.around.hindrance = reason
    for _ in range(5):
        await site.probing.probe()
    assert not engine.asked
    assert site.count(reason) == 5
    site.around.hindrance = ""
    await site.probing.probe()
    assert engine.asked[0]["prompt"] == PROMPTS[0]


async def test_an_engine_that_lists_no_model_is_asked_nothing(site: Site, engine: Engine) -> None:
    """Until it does."""
    site.around.models = ()
    await site.probing.probe()
    assert not engine.asked
    assert site.count("no_model", "unknown") == 1


async def test_configured_models_are_asked_in_turn(engine: Engine) -> None:
    """All models the same prompt, then the next."""
    site = Site(engine, Canary(enabled=True, models=("a", "b"), prompts=("x", "y")))
    for _ in range(4):
        await site.probing.probe()
    await site.asker.close()
    assert [(each["model"], each["prompt"]) for each in engine.asked] == [
        ("a", "x"),
        ("b", "x"),
        ("a", "y"),
        ("b", "y"),
    ]


def _answers() -> dict[str, Callable[[], Awaitable[web.StreamResponse]]]:
    async def refused() -> web.StreamResponse:
        return web.json_response({"error": {}}, status=429)

    async def unserved() -> web.StreamResponse:
        return web.json_response({"error": {}}, status=404)

    async def status() -> web.StreamResponse:
        return web.json_response({"error": "logprobs must be at most 0"}, status=400)

    async def down() -> web.StreamResponse:
        return web.Response(status=503)

    async def no_logprobs() -> web.StreamResponse:
        return web.json_response({"choices": [{"text": "a", "logprobs": None}]})

    async def not_a_number() -> web.StreamResponse:
        return completion(TOPS | {" Paris": None})

    async def malformed() -> web.StreamResponse:
        return web.Response(body=b'{"choices": [{"logprobs": {"top_logprobs": [{"a": NaN}]}}]}')

    async def too_large() -> web.StreamResponse:
        return web.Response(body=b" " * 1_000_000)

    async def timeout() -> web.StreamResponse:
        await asyncio.sleep(30)
        return completion()

    return {
        answer.__name__: answer
        for answer in (*(refused, unserved, status, down, no_logprobs, not_a_number, malformed, too_large, timeout),)
    }


ANSWERS = _answers()


@pytest.mark.parametrize("result", ANSWERS)
async def test_whatever_comes_back_is_counted_and_no_evidence(engine: Engine, result: str) -> None:
    """No crash, no alarm, a metric that says that the canary is off and why; and it goes on when the engine does."""
    site = Site(engine, Canary(enabled=True, timeout_s=0.2))
    engine.answer = ANSWERS[result]
    for _ in range(3):
        await site.probing.probe()
    site.watch.refresh()
    assert site.count(result) == 3
    assert site.store.gauge(m.CANARY_OFF, (result,)).value == 1
    engine.answer = engine.fine
    await site.probing.probe()
    site.watch.refresh()
    assert site.count("ok") == 1
    assert site.store.gauge(m.CANARY_OFF, (result,)).value is None
    assert not site.faults
    await site.asker.close()


async def test_an_engine_that_is_away_is_asked_ever_more_seldom(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause doubles up to a bound, and is short again with the first reply."""
    await engine.server.close()
    site = Site(engine)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(round(seconds))
        if len(pauses) == 6:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await site.probing.run()
    assert pauses == [120, 240, 480, MAX_PAUSE_S, MAX_PAUSE_S, MAX_PAUSE_S]
    assert site.count("connect") == 6


async def test_a_fault_of_ours_is_counted_and_probing_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is behind the fence."""

    def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(site.watch, "take", broken)
    await site.probing.probe()
    assert site.faults == ["canary"]


async def test_our_own_port_may_have_a_certificate_of_any_name(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for the name that clients use; no file of the system's is read for it, on the loop."""
    secure = TestServer(engine.app())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("llm.example").configure_cert(context)

    def read_files(*_: object, **__: object) -> None:
        raise AssertionError("reads certificates")

    monkeypatch.setattr(ssl, "create_default_context", read_files)
    await secure.start_server(ssl=context)
    asker = Asker(ENABLED, f"https://127.0.0.1:{secure.port}", secret=SECRET, key="")
    assert await asker.ask("m", "x", "") == TOPS
    await asker.close()
    await secure.close()


async def test_unreadable_says_why() -> None:
    """Nobody listens: `connect`."""
    asker = Asker(ENABLED, "http://127.0.0.1:1", secret=SECRET, key="")
    with pytest.raises(UnreadableError, match="connect"):
        await asker.ask("m", "x", "")
    await asker.close()


@pytest.mark.parametrize(
    ("key", "told"), [("", ["key_missing key=canary.key_env variable=ENGINE_KEY"]), ("sesame", [])]
)
def test_a_key_that_is_not_there(key: str, told: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Is told, by the name of its variable."""
    settings = Canary(enabled=True, key_env="ENGINE_KEY")
    Asker(settings, "http://127.0.0.1:1", secret=SECRET, key=key)
    assert caplog.messages == told
