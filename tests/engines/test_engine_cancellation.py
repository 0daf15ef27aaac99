"""A client that leaves frees the engine at once, at whatever stage its request is.

How fast is measured and printed, not asserted; asserted is that the engine stops long before it would by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator, Iterator

import pytest
from engine_cases import COMPLETIONS, MODEL, words
from engine_counters import at_rest, running, scrape, until, waiting
from engine_process import Engine, Figures, Proxy
from engine_wire import HangUp, Request, exchange

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

TRIALS = 7  # per stage and shape: 42 in all
SLOTS = 8  # --max-num-seqs of the session's engine
ENDLESS_TOKENS = 3000  # some seven seconds alone
GOAL_S = 0.3
DECODING_FOR_S = 0.25
PREFILL_PROMPTS = 6  # together a second of prefill: six prompts of most of the context, each new to the prefix cache
PREFILL_WORDS = 3200
PREFILLING_FOR_S = 0.1

Latencies = dict[str, list[float]]


@pytest.fixture(scope="module")
def latencies(figures: Figures) -> Iterator[Latencies]:
    """Seconds from hanging up to an idle engine, by stage (one scrape, some 35 ms, is the least measurable)."""
    found: Latencies = {}
    yield found
    for stage, values in found.items():
        soon = sum(value <= GOAL_S for value in values)
        p50_ms, max_ms = statistics.median(values) * 1e3, max(values) * 1e3
        text = f"p50 {p50_ms:.0f} ms, max {max_ms:.0f} ms, within {GOAL_S * 1e3:.0f} ms {soon}/{len(values)}"
        figures.append((f"engine idle after hang-up: {stage}", text))


def endless(streamed: bool, seed: int = 0) -> Request:
    """A request that decodes for seconds after a short prompt."""
    body = {
        "model": MODEL,
        "prompt": words(5, seed),
        "max_tokens": ENDLESS_TOKENS,
        "ignore_eos": True,
        "stream": streamed,
    }
    return Request.post(COMPLETIONS, body)


def slow_to_start(streamed: bool, seed: int) -> Request:
    """A request whose first token is a second away."""
    prompts = [words(PREFILL_WORDS, seed * PREFILL_PROMPTS + number) for number in range(PREFILL_PROMPTS)]
    body = {"model": MODEL, "prompt": prompts, "max_tokens": 200, "ignore_eos": True, "stream": streamed}
    return Request.post(COMPLETIONS, body)


@contextlib.asynccontextmanager
async def full_engine(engine: Engine) -> AsyncIterator[None]:
    """Every slot of the engine taken by requests that did not come through the proxy."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(exchange(engine.url, endless(streamed=True, seed=slot))) for slot in range(SLOTS)]
        await until(engine.url, lambda samples: running(samples) == SLOTS, "all slots taken")
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_leaving_while_decoding_stops_the_engine(
    engine: Engine, proxy: Proxy, latencies: Latencies, streamed: bool
) -> None:
    """A client that leaves in mid-answer costs a fraction of the tokens it had asked for."""
    for trial in range(TRIALS):
        before = await at_rest(engine.url)
        reply = await exchange(proxy.url, endless(streamed, trial), HangUp(after_s=DECODING_FOR_S))
        took_s = await until(engine.url, lambda samples: not running(samples), "abort of a decoding request")
        latencies.setdefault(f"decoding, {name_of(streamed)}", []).append(took_s)
        generated = (await at_rest(engine.url) - before).completion

        assert not reply.complete
        assert 0 < generated < ENDLESS_TOKENS / 2


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_leaving_during_prefill_stops_the_engine(
    engine: Engine, proxy: Proxy, latencies: Latencies, streamed: bool
) -> None:
    """A client that leaves before its first token is not decoded for."""
    for trial in range(TRIALS):
        before = await at_rest(engine.url)
        request = slow_to_start(streamed, seed=1000 + 100 * trial + streamed)
        reply = await exchange(proxy.url, request, HangUp(after_s=PREFILLING_FOR_S))
        took_s = await until(
            engine.url, lambda samples: not running(samples) + waiting(samples), "abort of a prefilling request"
        )
        latencies.setdefault(f"prefill, {name_of(streamed)}", []).append(took_s)
        moved = await at_rest(engine.url) - before

        assert not reply.chunks
        assert moved.completion < 200 * PREFILL_PROMPTS / 2


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_leaving_while_queued_takes_the_request_out_of_the_queue(
    engine: Engine, proxy: Proxy, latencies: Latencies, streamed: bool
) -> None:
    """With every slot taken, a client that leaves is no longer waited for, while the others go on."""
    for trial in range(TRIALS):
        await at_rest(engine.url)
        async with full_engine(engine):
            took_s = await queue_and_leave(engine, proxy, endless(streamed, trial))
            others = running(await scrape(engine.url))
        latencies.setdefault(f"queued, {name_of(streamed)}", []).append(took_s)

        assert others == SLOTS


async def queue_and_leave(engine: Engine, proxy: Proxy, request: Request) -> float:
    """Send, wait until the engine has queued it, hang up; the seconds until the engine's queue is empty."""
    async with asyncio.TaskGroup() as group:
        sender = group.create_task(exchange(proxy.url, request))
        await until(engine.url, lambda samples: waiting(samples) >= 1, "request queued")
        sender.cancel()
        return await until(engine.url, lambda samples: not waiting(samples), "abort of a queued request")


def name_of(streamed: bool) -> str:
    return "streamed" if streamed else "plain"
