"""The simulator's bytes against those recorded from vLLM 0.32.

Each recorded request is sent to a simulator started with the same flags. Values differ (another model answers), so
bodies are compared by shape: keys in their order, nulls, types, and the values that are the same in every reply.
Framing (one HTTP chunk per event), headers, status and the whole text of error bodies are compared as they are.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from inferwatch_simulator.testing import Answered, Serve, SimulatorClient

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vllm"
_ROUTES = ("/v1/chat/completions", "/v1/completions")
_SAME_VALUE = frozenset({"object", "role", "type"})
_OPTIONS = {
    "--enable-prompt-tokens-details": "enable_prompt_tokens_details",
    "--enable-per-request-metrics": "enable_per_request_metrics",
}


def _recorded(prefixes: tuple[str, ...] = ("chat", "completion", "details")) -> list[str]:
    names = []
    for path in sorted(FIXTURES.glob("*.json")):
        if path.name.startswith(prefixes):
            case = json.loads(path.read_text())
            if case["request"]["path"] in _ROUTES and case["response"].get("complete", True):
                names.append(path.stem)
    return names


def _load(name: str) -> dict[str, Any]:
    case: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return case


async def _replay(serve: Serve, case: dict[str, Any]) -> tuple[SimulatorClient, dict[str, Any]]:
    """A simulator with the recorded server's flags, and the request as it understands it.

    The recorded server had a reasoning parser for every request; the simulated model thinks when asked to.
    """
    flags = case["server_flags"]
    options: dict[str, Any] = {_OPTIONS[flag]: True for flag in flags if flag in _OPTIONS}
    body = json.loads(case["request"]["body"])
    if "--reasoning-parser" in flags and "messages" in body:
        body["chat_template_kwargs"] = {"enable_thinking": True}
    return await serve(max_model_len=4096, mean_output_tokens=30.0, **options), body


def shape(value: Any, key: str = "") -> Any:
    """What must be equal of a JSON value. The order of keys counts, that of list elements does not."""
    if isinstance(value, dict):
        if key in ("top_logprobs", "prompt_logprobs"):  # keyed by token
            return ("by token", frozenset(shape(inner) for inner in value.values()))
        return tuple((name, shape(inner, name)) for name, inner in value.items())
    if isinstance(value, list):
        return frozenset(shape(inner, key) for inner in value)
    if key in _SAME_VALUE:
        return value
    if value is None or isinstance(value, bool):
        return value
    return "number" if isinstance(value, int | float) else "text"


def chunk_shapes(answered: list[str]) -> set[Any]:
    """The different shapes among the events of a stream, comments aside: they depend on the pace."""
    return {
        shape(json.loads(event[6:])) if event.startswith("data: {") else event
        for event in answered
        if not event.startswith(":")
    }


def _headers(pairs: list[Any]) -> dict[str, str]:
    """What a client may rely on: not the values that time or length decide, not the id echoed by a flag."""
    kept = {
        name.lower(): value for name, value in pairs if name.lower() not in ("date", "content-length", "keep-alive")
    }
    kept.pop("x-request-id", None)
    return kept


_EXACT = [
    name for name in _recorded() if "tools" not in name and "--reasoning-parser" not in _load(name)["server_flags"]
]
_PARSED = sorted(set(_recorded()) - set(_EXACT))


def test_recordings_are_found() -> None:
    """The comparison below is not vacuous."""
    assert len(_EXACT) > 40
    assert len(_PARSED) > 10


@pytest.mark.parametrize("name", _EXACT)
async def test_reply_has_the_recorded_shape(serve: Serve, name: str) -> None:
    """Status, headers, and every kind of event or the body are those of vLLM."""
    case = _load(name)
    client, body = await _replay(serve, case)
    answered = await client.post(case["request"]["path"], body, _request_headers(case))

    assert case["response"]["status"] == answered.status
    assert _headers(case["response"]["headers"]) == _headers(answered.headers)
    if body.get("stream"):
        events = [event for event in case["response"]["chunks"] if event]
        assert chunk_shapes(events) - _final_text(events) == chunk_shapes(answered.events) - _final_text(
            answered.events
        )
        assert answered.events[-1] == "data: [DONE]\n\n"
    else:
        assert shape(json.loads("".join(case["response"]["chunks"]))) == shape(answered.json)


def _final_text(events: list[str]) -> set[Any]:
    """A stream of one token (or one cut short by a stop string) lacks the chunks between first and last."""
    chunks = [event for event in events if '"finish_reason":null' in event and '"role"' not in event]
    return chunk_shapes(chunks)


def _request_headers(case: dict[str, Any]) -> dict[str, str]:
    return {"X-Request-Id": case["request"]["headers"].get("X-Request-Id", "id")}


@pytest.mark.parametrize("name", [name for name in _PARSED if ".plain" not in name])
async def test_parsed_stream_has_only_recorded_shapes(serve: Serve, name: str) -> None:
    """With tools or reasoning the answers differ, but every event has a shape that vLLM's streams of its kind have."""
    case = _load(name)
    client, body = await _replay(serve, case)
    known: set[Any] = set()
    for other in _PARSED:
        if other.endswith(name.rsplit(".", 1)[1]) and _load(other)["server_flags"] == case["server_flags"]:
            known |= chunk_shapes([event for event in _load(other)["response"]["chunks"] if event])

    answered = await client.post(case["request"]["path"], body, _request_headers(case))

    assert chunk_shapes(answered.events) <= known


@pytest.mark.parametrize("name", [name for name in _recorded(("error_",)) if "method" not in name])
async def test_error_is_the_recorded_one(serve: Serve, name: str) -> None:
    """Refusals have vLLM's status and vLLM's words."""
    case = _load(name)
    client = await serve(max_model_len=4096)
    request = case["request"]
    data = (request.get("body") or "").encode()

    answered = await client.request(request["method"], request["path"], data)

    assert case["response"]["status"] == answered.status
    assert "".join(case["response"]["chunks"]) == answered.body.decode()
    assert _headers(case["response"]["headers"]) == _headers(answered.headers)


@pytest.mark.parametrize("name", ["error_method_not_allowed", "error_route_unknown", "get_health", "get_version"])
async def test_small_reply_is_the_recorded_one(serve: Serve, name: str) -> None:
    """Routes without tokens answer as vLLM's do."""
    case = _load(name)
    answered = await (await serve()).request(case["request"]["method"], case["request"]["path"])
    assert case["response"]["status"] == answered.status
    assert "".join(case["response"]["chunks"]) == answered.body.decode()
    assert _headers(case["response"]["headers"]) == _headers(answered.headers)


@pytest.mark.parametrize("name", ["get_models", "tokenize_prompt", "tokenize_chat"])
async def test_small_json_has_the_recorded_shape(serve: Serve, name: str) -> None:
    """Model list and token counts have vLLM's keys."""
    case = _load(name)
    data = (case["request"].get("body") or "").encode() or None
    answered = await (await serve()).request(case["request"]["method"], case["request"]["path"], data)
    assert shape(json.loads("".join(case["response"]["chunks"]))) == shape(answered.json)


async def test_every_event_is_one_http_chunk(serve: Serve) -> None:
    """As uvicorn frames what vLLM yields: the role, each token, usage and the end mark by themselves."""
    client = await serve()
    received = await client.raw(
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": True, "ignore_eos": True}
        | {"stream_options": {"include_usage": True}},
    )
    body = received.body
    chunks = []
    while True:
        size, rest = body.split(b"\r\n", 1)
        if size == b"0":
            break
        chunks.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    assert len(chunks) == 6
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in chunks)
    assert chunks[-1] == b"data: [DONE]\n\n"


def _exposition(text: str) -> dict[str, tuple[str, frozenset[str], frozenset[str]]]:
    """For each metric family its type, its label names, and its bucket bounds."""
    types: dict[str, str] = {}
    labels: dict[str, set[str]] = {}
    bounds: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            types[name], labels[name], bounds[name] = kind, set(), set()
        elif line and not line.startswith("#") and "{" in line:
            sample, rest = line.split("{", 1)
            family = sample if sample in types else sample.rsplit("_", 1)[0]
            for pair in rest.rsplit("}", 1)[0].split('",'):
                label, value = pair.split("=", 1)
                if label == "le":
                    bounds[family].add(value.strip('"'))
                else:
                    labels[family].add(label)
    return {name: (kind, frozenset(labels[name]), frozenset(bounds[name])) for name, kind in types.items()}


async def test_metrics_are_among_the_recorded_ones(serve: Serve) -> None:
    """Every metric exists in vLLM under this name, with this type, these labels and these buckets."""
    client = await serve(max_model_len=4096)
    await client.chat(max_tokens=2)
    real = _exposition("".join(_load("get_metrics")["response"]["chunks"]))
    simulated = _exposition((await client.request("GET", "/metrics")).body.decode())
    for name, described in simulated.items():
        if name == "vllm:cache_config_info":  # one label per setting there is
            assert described[1] <= real[name][1]
        else:
            assert real[name] == described, name


async def test_metrics_name_what_is_scraped(serve: Serve) -> None:
    """None of what collectors read from vLLM is missing."""
    text = (await (await serve()).request("GET", "/metrics")).body.decode()
    for name in (
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "prompt_tokens_total",
        "generation_tokens_total",
        "num_preemptions_total",
        "prefix_cache_queries_total",
        "prefix_cache_hits_total",
        "request_success_total",
        "admission_rejections_total",
        "time_to_first_token_seconds_bucket",
        "inter_token_latency_seconds_bucket",
        "e2e_request_latency_seconds_bucket",
        "request_queue_time_seconds_bucket",
        "cache_config_info",
    ):
        assert f"\nvllm:{name}{{" in text, name


async def test_head_comes_before_the_first_token(serve: Serve) -> None:
    """The response begins while the engine has yet to compute the prompt."""
    client = await serve(speed=1.0, decode_step_ms_base=60_000.0)
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with asyncio.timeout(10), client.session.post(client.url + "/v1/chat/completions", json=body) as response:
        assert response.status == 200
        assert client.simulator.engine.scheduler.running[0].generated == 0


def test_answered_splits_events() -> None:
    """The tests' own reading of a stream keeps comments and the end mark."""
    answered = Answered(200, [], b': keep-alive\n\ndata: {"a":1}\n\ndata: [DONE]\n\n')
    assert answered.events == [": keep-alive\n\n", 'data: {"a":1}\n\n', "data: [DONE]\n\n"]
    assert answered.chunks == [{"a": 1}]
