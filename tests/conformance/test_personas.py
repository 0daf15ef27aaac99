"""Every engine's persona, read by our dialects: the counts are what the simulated engine counted itself.

The shapes that both sides agree on are held against recorded ones in `tests/simulator/test_persona_shapes.py`.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import aiohttp
import pytest

from inferwatch.engines import PROFILES
from inferwatch.record import RequestRecord, TokenClass, TokenSource
from inferwatch.relay.engine_identity import Answer, identify
from inferwatch.tap import Close, Head, Open
from inferwatch_collectors.engine.names import BY_ENGINE, WANTED
from inferwatch_collectors.engine.normalise import normalise
from inferwatch_collectors.engine.parse import parse
from inferwatch_collectors.exchange import Exchange
from inferwatch_collectors.quickstart_docs import FIRST_CHAT
from inferwatch_simulator.config import ENGINES, SimulatorConfig
from inferwatch_simulator.server import RunningSimulator, start

MODEL = "tiny"
Start = Callable[..., Awaitable[RunningSimulator]]


@pytest.fixture(name="begin")
async def _begin() -> AsyncIterator[Start]:
    """Start simulators; all are closed after the test."""
    running = []

    async def begin(engine: str, **options: Any) -> RunningSimulator:
        settings = {"port": 0, "model": MODEL, "speed": 1000.0, "engine": engine, **options}
        running.append(await start(SimulatorConfig(**settings)))
        return running[-1]

    yield begin
    for simulator in running:
        await simulator.close()


class Case(NamedTuple):
    """A request to an engine, and how its counts are known."""

    engine: str
    path: str
    body: dict[str, Any]
    source: TokenSource
    prompt_known: bool = True


CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "tell me of proxies"}], "max_tokens": 12}
TEXT = {"model": MODEL, "prompt": "tell me of proxies", "max_tokens": 12}
USAGE = {"stream_options": {"include_usage": True}}
CONTINUOUS = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
STREAM = {"stream": True}
FINAL, TIMINGS, DETAILS, HEADERS = (
    TokenSource.FINAL_USAGE,
    TokenSource.TIMINGS,
    TokenSource.DETAILS,
    TokenSource.HEADERS,
)
GUESS, NONE = TokenSource.CHUNK_ESTIMATE, TokenSource.NONE
INPUTS = {"inputs": "tell me of proxies", "parameters": {"max_new_tokens": 12}}
WITH_DETAILS = {"inputs": "tell me of proxies", "parameters": {"max_new_tokens": 12, "details": True}}
NATIVE = {"text": "tell me of proxies", "sampling_params": {"max_new_tokens": 12}}
OLLAMA = {"model": MODEL, "messages": CHAT["messages"], "options": {"num_predict": 12}}
TRITON = {"text_input": "tell me of proxies", "max_tokens": 12}
TENSORS = {"return_num_output_tokens": True, "return_num_input_tokens": True}
RESPONSES = {"model": MODEL, "input": "tell me of proxies", "max_output_tokens": 12}
AZURE = "/openai/deployments/tiny/chat/completions"

CASES = [
    Case("tgi", "/generate", INPUTS, HEADERS),
    Case("tgi", "/generate", WITH_DETAILS, DETAILS),
    Case("tgi", "/generate_stream", WITH_DETAILS, DETAILS),
    Case("tgi", "/generate_stream", INPUTS, GUESS, prompt_known=False),
    Case("tgi", "/", INPUTS, HEADERS),
    Case("tgi", "/", WITH_DETAILS | STREAM, DETAILS),
    Case("tgi", "/v1/chat/completions", CHAT, FINAL),
    Case("tgi", "/v1/chat/completions", CHAT | STREAM | USAGE, FINAL),
    Case("tgi", "/v1/completions", TEXT | STREAM, FINAL),
    Case("tgi", "/v1/completions", {**TEXT, "prompt": ["one", "two more"]} | STREAM, FINAL),
    Case("sglang", "/generate", NATIVE, FINAL),
    Case("sglang", "/generate", NATIVE | STREAM, FINAL),
    Case("sglang", "/generate", {**NATIVE, "text": ["one", "two more"]} | STREAM, FINAL),
    Case("sglang", "/v1/chat/completions", CHAT | STREAM | CONTINUOUS, FINAL),
    Case("sglang", "/v1/completions", TEXT, FINAL),
    Case("trtllm", "/v1/chat/completions", CHAT | STREAM | USAGE, FINAL),
    Case("trtllm", "/v1/completions", {**TEXT, "prompt": ["one", "two more"]} | STREAM | USAGE, FINAL),
    Case("trtllm", "/v1/completions", TEXT, FINAL),
    Case("triton", "/v2/models/tiny/generate", TRITON | TENSORS, DETAILS),
    Case("triton", "/v2/models/tiny/generate_stream", TRITON | TENSORS, DETAILS),
    Case("triton", "/v2/models/tiny/generate", TRITON, NONE, prompt_known=False),
    Case("llamacpp", "/completion", {"prompt": "tell me", "n_predict": 12}, FINAL),
    Case("llamacpp", "/completion", {"prompt": "tell me", "n_predict": 12} | STREAM, FINAL),
    Case("llamacpp", "/completion", {"prompt": ["one", "two more"], "n_predict": 12}, FINAL),
    Case("llamacpp", "/v1/chat/completions", CHAT | STREAM, TIMINGS),
    Case("llamacpp", "/v1/chat/completions", CHAT | STREAM | USAGE, FINAL),
    Case("llamacpp", "/v1/chat/completions", CHAT | STREAM | {"n": 2}, TIMINGS),
    Case("llamacpp", "/v1/chat/completions", CHAT | STREAM | USAGE | {"n": 2}, FINAL),
    Case("llamacpp", "/v1/chat/completions", CHAT, FINAL),
    Case("llamacpp", "/v1/completions", TEXT | STREAM, FINAL),
    Case("llamacpp", "/v1/completions", {**TEXT, "prompt": ["one", "two more"]} | STREAM, FINAL),
    Case("ollama", "/api/chat", OLLAMA, FINAL),
    Case("ollama", "/api/chat", OLLAMA | {"stream": False}, FINAL),
    Case("ollama", "/api/generate", {"model": MODEL, "prompt": "hi", "options": {"num_predict": 12}}, FINAL),
    Case("ollama", "/v1/chat/completions", CHAT | STREAM | USAGE, FINAL),
    Case("transformers", "/v1/chat/completions", CHAT | STREAM, FINAL),
    Case("transformers", "/v1/responses", RESPONSES, FINAL),
    Case("anthropic", "/v1/messages", CHAT, FINAL),
    Case("anthropic", "/v1/messages", CHAT | STREAM, FINAL),
    Case("openai", "/v1/chat/completions", CHAT | STREAM | USAGE, FINAL),
    Case("openai", AZURE, CHAT, FINAL),
    Case("openai", "/v1/responses", RESPONSES, FINAL),
    Case("openai", "/v1/responses", RESPONSES | STREAM, FINAL),
    Case("vllm", "/v1/chat/completions", CHAT | STREAM | CONTINUOUS, FINAL),
]
IDS = [f"{number} {case.engine} {case.path}" for number, case in enumerate(CASES)]


def head_of(engine: str) -> dict[str, str]:
    """Return the headers that the engine's profile says a request needs."""
    pairs = (header.partition(": ") for header in PROFILES[engine].ask_headers)
    return {name: value for name, _, value in pairs}


async def booked(simulator: RunningSimulator, path: str, body: dict[str, Any]) -> tuple[RequestRecord, bytes]:
    """Send a request, and return what our dialects book of the reply, and the reply."""
    request = json.dumps(body).encode()
    prompt = body.get("prompt")
    exchange = Exchange(
        Open(
            id=1, request_id="r", wall_ns=1, arrival_ns=1, sent_ns=2, method="POST", path=path, tenant="t", model=MODEL,
            stream=bool(body.get("stream")), asked_usage=False,
            choices=len(prompt) if isinstance(prompt, list) else 1, headers={}, body=request, body_bytes=len(request),
        )
    )  # fmt: skip
    whole = b""
    async with (
        aiohttp.ClientSession(headers=head_of(simulator.config.engine)) as session,
        session.post(simulator.url + path, json=body) as reply,
    ):
        headers = {name.lower(): value for name, value in reply.headers.items()}
        exchange.head(Head(1, 3, reply.status, headers))
        stamp_ns = 3
        async for data in reply.content.iter_any():
            stamp_ns += 1_000
            exchange.read(stamp_ns, data)
            whole += data
        close = Close(
            id=1,
            stamp_ns=stamp_ns + 1,
            outcome="ok",
            error="",
            status=reply.status,
            response_bytes=len(whole),
            head_ns=3,
        )
    return exchange.close(close), whole


@pytest.mark.parametrize("case", CASES, ids=IDS)
async def test_what_is_booked_is_what_the_engine_counted(begin: Start, case: Case) -> None:
    """Difference 0, with the source that the profile promises."""
    simulator = await begin(case.engine)
    record, whole = await booked(simulator, case.path, case.body)
    totals = simulator.engine.metrics.totals()
    assert (record.outcome.value, record.token_source) == ("ok", case.source), whole[-600:]
    read = totals.prompt_tokens // case.body.get("n", 1)  # the simulated engine counts a prompt for each answer
    assert record.prompt_tokens == (read if case.prompt_known else None)
    if case.source is not NONE:
        assert record.completion_tokens == totals.completion_tokens
    if record.stream:
        assert record.first_token is TokenClass.ANSWER
    assert record.finish_reasons or case.source in (GUESS, HEADERS, NONE) or case.engine == "triton"


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_first_request_of_the_quick_start_is_answered(begin: Start, engine: str) -> None:
    """With the headers that its page says, and of somebody else's service not without any of them."""
    simulator = await begin(engine, model="MODEL")
    profile = PROFILES[engine]
    path, body = profile.ask if profile.ask[0] else FIRST_CHAT
    head = {"content-type": "application/json", **head_of(engine)}
    async with aiohttp.ClientSession() as session:
        async with session.post(simulator.url + path, data=body, headers=head) as reply:
            assert reply.status == 200, await reply.text()
        for name, status in (("x-api-key", 401), ("anthropic-version", 400)) if engine == "anthropic" else ():
            without = {key: value for key, value in head.items() if key != name}
            async with session.post(simulator.url + path, data=body, headers=without) as reply:
                told = await reply.json()
                assert (reply.status, told["type"], name in told["error"]["message"]) == (status, "error", True)


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_engine_is_found_out(begin: Start, engine: str) -> None:
    """By its persona's pages; the managed APIs have nothing that would give them away."""
    simulator = await begin(engine)

    async def get(path: bytes) -> Answer:
        async with aiohttp.ClientSession() as session, session.get(simulator.url + path.decode()) as reply:
            headers = {name.lower().encode(): value.encode() for name, value in reply.headers.items()}
            return Answer(reply.status, headers, await reply.read())

    assert await identify(get) == ("unknown" if engine in ("anthropic", "openai") else engine)


def test_every_profile_has_a_persona() -> None:
    """And every persona a case above, or an engine would go untested."""
    assert set(ENGINES) == set(PROFILES) - {"unknown"}
    assert {case.engine for case in CASES} == set(ENGINES)


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if PROFILES[engine].metrics])
async def test_its_metrics_are_read(begin: Start, engine: str) -> None:
    """Under its own names, with the counts of the requests that it had."""
    simulator = await begin(engine)
    case = next(case for case in CASES if case.engine == engine)
    await booked(simulator, case.path, case.body)
    path = "/prometheus/metrics" if engine == "trtllm" else "/metrics"
    async with aiohttp.ClientSession() as session, session.get(simulator.url + path) as reply:
        assert reply.content_type == "text/plain"
        reading = normalise(parse(await reply.read(), WANTED))
    assert reading is not None
    assert reading.engine == PROFILES[engine].metrics
    assert reading.requests_running == 0
    if engine != "triton":
        totals = simulator.engine.metrics.totals()
        assert (reading.prompt_tokens, reading.completion_tokens) == (totals.prompt_tokens, totals.completion_tokens)
    assert engine in BY_ENGINE


@pytest.mark.parametrize(
    ("engine", "path", "body", "status", "outcome"),
    [
        ("tgi", "/generate_stream", {"inputs": ""}, 200, "rejected"),
        ("tgi", "/generate", {"inputs": ""}, 422, "rejected"),
        ("tgi", "/v1/chat/completions", {**CHAT, "n": 0} | STREAM, 200, "rejected"),
        ("ollama", "/api/chat", {"model": "none", "messages": []}, 404, "rejected"),
        ("transformers", "/v1/chat/completions", CHAT | {"foo": 1}, 422, "rejected"),
        ("anthropic", "/v1/messages", {"messages": []}, 400, "rejected"),
        ("sglang", "/generate", {}, 400, "rejected"),
        ("triton", "/v2/models/m/generate", {}, 400, "rejected"),
        ("llamacpp", "/completion", {}, 400, "rejected"),
        ("openai", "/v1/responses", {}, 400, "rejected"),
    ],
)
async def test_a_refusal_is_booked_as_one(
    begin: Start, engine: str, path: str, body: dict[str, Any], status: int, outcome: str
) -> None:
    """In the engine's words, and at 200 where it says so inside a stream."""
    record, _ = await booked(await begin(engine), path, body)
    assert (record.status, record.outcome.value) == (status, outcome)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/generate_stream", INPUTS, 200),
        ("/generate", INPUTS, 429),
        ("/v1/chat/completions", CHAT | STREAM, 200),
    ],
)
async def test_tgi_s_overload_is_rejected(begin: Start, path: str, body: dict[str, Any], status: int) -> None:
    """Also inside a stream, where its status is 200 and the one in its event is wrong."""
    simulator = await begin("tgi", max_num_queued_reqs=0)
    record, whole = await booked(simulator, path, body)
    assert (record.status, record.outcome.value) == (status, "rejected")
    assert b"overloaded" in whole
