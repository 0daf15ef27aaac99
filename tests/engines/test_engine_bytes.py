"""Every kind of request, sent to vLLM and through Inferwatch: the client receives the same bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from engine_cases import CHAT, COMPLETIONS, KINDS, MESSAGES, MODEL, RESPONSES, USAGE_VARIANTS, Kind, messages
from engine_compare import Body, Head, comparable_body, comparable_head
from engine_process import Engine, Figures, Proxy
from engine_wire import Request, exchange

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

ATTEMPTS = 8
JSON = (("Content-Type", "application/json"),)
CHAT_BODY = {"model": MODEL, "messages": messages("hi"), "temperature": 0, "max_tokens": 4}
# What a client can get wrong, and what is not a generation at all.
OTHERS: dict[str, Request] = {
    "model unknown": Request.post(CHAT, {**CHAT_BODY, "model": "nope"}),
    "model unknown, streamed": Request.post(CHAT, {**CHAT_BODY, "model": "nope", "stream": True}),
    "JSON broken": Request("POST", CHAT, b'{"model": "tiny", ', JSON),
    "JSON broken, stream inside": Request("POST", CHAT, b'{"stream": true, "model"', JSON),
    "body empty": Request("POST", CHAT, b""),
    "body not an object": Request("POST", CHAT, b"[1,2]", JSON),
    "field missing": Request.post(CHAT, {"model": MODEL}),
    "field missing, streamed": Request.post(CHAT, {"model": MODEL, "stream": True}),
    "field of the wrong type, streamed": Request.post(CHAT, {**CHAT_BODY, "stream": True, "temperature": "hot"}),
    "prompt too long": Request.post(COMPLETIONS, {"model": MODEL, "prompt": [5] * 5000}),
    "prompt too long, streamed": Request.post(COMPLETIONS, {"model": MODEL, "prompt": [5] * 5000, "stream": True}),
    "stream_options without stream": Request.post(CHAT, {**CHAT_BODY, "stream_options": {"include_usage": True}}),
    "stream_options of the wrong type": Request.post(CHAT, {**CHAT_BODY, "stream": True, "stream_options": 3}),
    "include_usage of the wrong type": Request.post(
        CHAT, {**CHAT_BODY, "stream": True, "stream_options": {"include_usage": "maybe"}}
    ),
    "stream_options null": Request.post(CHAT, {**CHAT_BODY, "stream": True, "stream_options": None}, "same"),
    "stream_options empty": Request.post(CHAT, {**CHAT_BODY, "stream": True, "stream_options": {}}, "same"),
    "continuous without include": Request.post(
        CHAT, {**CHAT_BODY, "stream": True, "stream_options": {"continuous_usage_stats": True}}, "same"
    ),
    "usage refused": Request.post(
        CHAT, {**CHAT_BODY, "stream": True, "stream_options": {"include_usage": False}}, "same"
    ),
    "stream as a word": Request.post(CHAT, {**CHAT_BODY, "stream": "true"}, "same"),
    "stream as a number": Request.post(CHAT, {**CHAT_BODY, "stream": 1}, "same"),
    "stream as a number, usage asked for": Request.post(
        CHAT, {**CHAT_BODY, "stream": 1, "stream_options": {"include_usage": 1}}, "same"
    ),
    "content type of text": Request("POST", CHAT, b'{"messages":[]}', (("Content-Type", "text/plain"),)),
    "n with greedy sampling": Request.post(CHAT, {**CHAT_BODY, "n": 2}),
    "Responses": Request.post(
        RESPONSES, {"model": MODEL, "input": "hi", "temperature": 0, "max_output_tokens": 3}, "same"
    ),
    "Responses, streamed": Request.post(
        RESPONSES, {"model": MODEL, "input": "hi", "temperature": 0, "max_output_tokens": 3, "stream": True}, "same"
    ),
    "Messages": Request.post(MESSAGES, {**CHAT_BODY, "messages": [{"role": "user", "content": "hi"}]}, "same"),
    "Messages, streamed": Request.post(
        MESSAGES, {**CHAT_BODY, "messages": [{"role": "user", "content": "hi"}], "stream": True}, "same"
    ),
    "Messages, field missing": Request.post(MESSAGES, {"model": MODEL}),
    "tokenize": Request.post("/tokenize", {"model": MODEL, "prompt": "def f(x):"}),
    "models": Request("GET", "/v1/models"),
    "health": Request("GET", "/health"),
    "version": Request("GET", "/version"),
    "route unknown": Request.post("/v1/nope", {}),
    "method not allowed": Request("GET", CHAT),
    "HEAD": Request("HEAD", "/v1/models"),
    "query string": Request("GET", "/v1/models?a=%20b&c=%2F"),
    "compression offered": Request("GET", "/version", None, (("Accept-Encoding", "gzip, br, zstd"),)),
}  # fmt: skip


@pytest.fixture(scope="module")
def tally(figures: Figures) -> Iterator[Counter[str]]:
    """Counts comparisons for the closing table."""
    counts: Counter[str] = Counter()
    yield counts
    figures.append(
        ("replies compared, direct and proxied", ", ".join(f"{count} {what}" for what, count in counts.items()))
    )


Comparable = tuple[Head, Body]


async def both(engine: Engine, proxy: Proxy, request: Request, choices: int = 1) -> tuple[Comparable, Comparable]:
    """(direct, proxied), each as (head, body), from the first attempt in which they agree, else from the last.

    vLLM merges tokens into one event whenever its API server lags behind its engine, so that two direct replies, too,
    differ now and then; a difference made by the proxy is there in every attempt.
    """
    for _ in range(ATTEMPTS - 1):
        direct, proxied = await attempt(engine, proxy, request, choices)
        if direct == proxied:
            break
    else:
        direct, proxied = await attempt(engine, proxy, request, choices)
    return direct, proxied


async def attempt(engine: Engine, proxy: Proxy, request: Request, choices: int) -> tuple[Comparable, Comparable]:
    """One pair of replies."""
    replies = await exchange(engine.url, request), await exchange(proxy.url, request)
    direct, proxied = ((comparable_head(reply), comparable_body(reply, choices)) for reply in replies)
    return direct, proxied


@pytest.mark.parametrize("variant", [None, *USAGE_VARIANTS], ids=lambda variant: variant or "plain")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_every_generation_arrives_unchanged(
    engine: Engine, proxy: Proxy, kind: Kind, variant: str | None, tally: Counter[str]
) -> None:
    """Status, headers and body of a generation are those that vLLM sends, whatever usage the client asked for."""
    request = Request.post(kind.path, kind.request_body(variant), request_id="same")
    direct, proxied = await both(engine, proxy, request, kind.choices)

    assert direct[0][0] == 200
    assert proxied == direct
    tally["generations equal"] += 1


@pytest.mark.parametrize("name", OTHERS)
async def test_everything_else_arrives_unchanged(engine: Engine, proxy: Proxy, name: str, tally: Counter[str]) -> None:
    """Errors, odd requests and other routes are answered as vLLM answers them."""
    direct, proxied = await both(engine, proxy, OTHERS[name])

    assert proxied == direct
    tally["others equal"] += 1


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_client_that_asked_for_no_usage_sees_none(proxy: Proxy, path: str) -> None:
    """Without stream_options the word usage is nowhere in the stream, and each event has a choice."""
    kind = next(kind for kind in KINDS if kind.path == path)
    reply = await exchange(proxy.url, Request.post(path, kind.request_body("bare")))

    assert b"usage" not in reply.body
    assert b'"choices":[]' not in reply.body
    assert reply.events[-1] == b"data: [DONE]\n\n"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_client_that_asked_for_final_usage_sees_it_once(proxy: Proxy, path: str) -> None:
    """With include_usage alone, usage comes on one event without choices, right before [DONE]."""
    kind = next(kind for kind in KINDS if kind.path == path)
    reply = await exchange(proxy.url, Request.post(path, kind.request_body("usage")))

    assert [b"usage" in event for event in reply.events] == [False] * (len(reply.events) - 2) + [True, False]
    assert b'"choices":[],"usage":{"prompt_tokens":' in reply.events[-2]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_client_that_asked_for_continuous_usage_sees_it_on_every_event(proxy: Proxy, path: str) -> None:
    """With continuous_usage_stats, every event but [DONE] carries usage, and completion tokens never fall."""
    kind = next(kind for kind in KINDS if kind.path == path)
    reply = await exchange(proxy.url, Request.post(path, kind.request_body("continuous")))
    counts = [int(count) for count in re.findall(rb'"completion_tokens":(\d+)', reply.body)]

    assert [b'"usage":{' in event for event in reply.events] == [True] * (len(reply.events) - 1) + [False]
    assert counts == sorted(counts)
    assert counts[-1] == kind.body["max_tokens"]
