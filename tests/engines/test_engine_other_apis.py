"""Real engines beside chat and completions of vLLM: its Responses and Messages, and Transformers serve."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from engine_cases import MESSAGES, MODEL, RESPONSES
from engine_counters import Samples, at_rest, booked_after, booked_tokens, scrape
from engine_process import Engine, Proxy, running_inferwatch, running_transformers
from engine_wire import Reply, Request, exchange

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

ROUNDS = 10
SAID = [{"role": "user", "content": "hi there"}]
CHAT = "/v1/chat/completions"


def _asked(path: str, round_: int, *, stream: bool) -> dict[str, Any]:
    limit = 3 + round_
    body: dict[str, Any] = {"model": MODEL, "temperature": 0, "stream": stream}
    if path == RESPONSES:
        return body | {"input": f"hi number {round_}", "max_output_tokens": limit}
    return body | {"messages": SAID, "max_tokens": limit}


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
async def test_vllm_s_other_apis_are_booked_exactly(engine: Engine, proxy: Proxy, books: str, path: str) -> None:
    """Plain and streamed: the difference to vLLM's own counters is 0."""
    counted, booked = await at_rest(engine.url), await booked_tokens(books)
    for round_ in range(ROUNDS):
        for stream in (False, True):
            reply = await exchange(proxy.url, Request.post(path, _asked(path, round_, stream=stream)))
            assert reply.status == 200
    counted = await at_rest(engine.url) - counted
    booked = await booked_after(books, booked.requests + 2 * ROUNDS) - booked
    assert (booked.prompt, booked.completion) == (counted.prompt, counted.completion)
    assert set(booked.sources or {}) == {"final_usage"}
    assert set(booked.outcomes or {}) == {"ok"}


async def test_a_stored_response_is_not_booked_again(engine: Engine, proxy: Proxy, books: str) -> None:
    """Counting and fetching look like usage and cost nothing."""
    before = await booked_tokens(books)
    await exchange(proxy.url, Request.post(f"{MESSAGES}/count_tokens", {"model": MODEL, "messages": SAID}))
    await exchange(proxy.url, Request("GET", f"{RESPONSES}/resp_0"))
    await exchange(proxy.url, Request.post("/tokenize", {"model": MODEL, "prompt": "hi"}))
    after = await booked_after(books, before.requests + 3) - before
    assert (after.prompt, after.completion) == (0, 0)


class Served:
    """Transformers serve behind Inferwatch."""

    def __init__(self, engine: str, proxy: str, admin: str, model: str) -> None:
        self.engine, self.proxy, self.admin, self.model = engine, proxy, admin, model

    async def ask(self, path: str, body: dict[str, Any], *, direct: bool = False) -> Reply:
        """Send a request, through the proxy unless `direct`."""
        return await exchange(self.engine if direct else self.proxy, Request.post(path, {"model": self.model, **body}))

    async def booked(self, requests: int) -> Samples:
        """Return the books when so many requests are in them."""
        await booked_after(self.admin, requests)
        return await scrape(self.admin)


@pytest.fixture(scope="module", name="served")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    state = tmp_path_factory.mktemp("transformers")
    with running_transformers() as (url, model), running_inferwatch(url, state) as (proxy, admin):
        yield Served(url, proxy, admin, model)


def _objects(reply: Reply) -> list[dict[str, Any]]:
    lines = [line for line in reply.body.split(b"\n") if line.startswith(b"data:")]
    return [json.loads(line[5:]) for line in lines]


async def test_transformers_serve(served: Served) -> None:
    """Never broken by us, although it refuses what it does not know; tokens as it reports them; a true first token."""
    body = {"messages": SAID, "max_tokens": 5}
    plain = await served.ask(CHAT, body)
    assert plain.status == 200, plain.body
    streamed = await served.ask(CHAT, body | {"stream": True})
    assert streamed.status == 200, streamed.body
    refused = await served.ask(CHAT, body | {"foo": 1})
    assert (refused.status, refused.body) == (422, (await served.ask(CHAT, body | {"foo": 1}, direct=True)).body)
    usages = [json.loads(plain.body)["usage"], _objects(streamed)[-1]["usage"]]
    books = await served.booked(3)
    assert books("inferwatch_tokens_total", type="prompt") == sum(usage["prompt_tokens"] for usage in usages)
    assert books("inferwatch_tokens_total", type="completion") == sum(usage["completion_tokens"] for usage in usages)
    assert books.by_label("inferwatch_requests_total", "outcome")["rejected"] == 1
    # The role chunk comes well before the first token; that is the one that counts.
    assert books("inferwatch_time_to_first_token_seconds_count") == 1


async def test_transformers_serve_s_responses(served: Served) -> None:
    """They stream unasked, and have no `event:` lines."""
    before = await served.booked(0)
    reply = await served.ask(RESPONSES, {"input": "hi", "max_output_tokens": 5})
    assert reply.status == 200, reply.body
    usage = next(event["response"]["usage"] for event in reversed(_objects(reply)) if "response" in event)
    requests = int(before("inferwatch_requests_total")) + 1
    after = await served.booked(requests)
    name = "inferwatch_tokens_total"
    assert after(name, type="completion") - before(name, type="completion") == usage["output_tokens"]
    assert after(name, type="prompt") - before(name, type="prompt") == usage["input_tokens"]
