"""vLLM's APIs beside chat and completions: Responses and Messages, and what looks like usage and costs nothing."""

from __future__ import annotations

from typing import Any

import pytest
from engine_cases import MESSAGES, MODEL, RESPONSES
from engine_counters import at_rest, booked_after, booked_tokens
from engine_process import Engine, Proxy
from engine_wire import Request, exchange

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

ROUNDS = 10
SAID = [{"role": "user", "content": "hi there"}]


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
