"""What Inferwatch says of a real vLLM against vLLM's own `/metrics`, and whether what goes around the proxy is seen."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from engine_cases import COMPLETIONS, MODEL, Job, long_job, words, workload
from engine_counters import Samples, at_rest, compared_anew, running, scrape, until
from engine_process import Engine, Figures, running_inferwatch
from engine_wire import HangUp, Request, exchange

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

INTERVAL_S = 1.0  # instead of five seconds: the tests wait for scrapes
LAG_S = 2.5  # a scrape, and the relays' next report
REQUESTS = 120
CLIENTS = 16
BYPASSED_TOKENS = 100
PROMPTS, LONG_TOKENS = 6, 1500  # a second or more of work

# Ours -> vLLM's.
COUNTERS = {
    ("inferwatch_engine_tokens_total", "prompt"): "vllm:prompt_tokens_total",
    ("inferwatch_engine_tokens_total", "cached"): "vllm:prompt_tokens_cached_total",
    ("inferwatch_engine_tokens_total", "completion"): "vllm:generation_tokens_total",
    ("inferwatch_engine_preemptions_total", ""): "vllm:num_preemptions_total",
    ("inferwatch_engine_prefix_cache_queries_total", ""): "vllm:prefix_cache_queries_total",
    ("inferwatch_engine_prefix_cache_hits_total", ""): "vllm:prefix_cache_hits_total",
}


@dataclass(frozen=True)
class Watched:
    """Inferwatch with a state folder of its own before the session's engine."""

    engine: str
    url: str
    admin: str

    @property
    def upstream(self) -> str:
        return urlsplit(self.engine).netloc

    def ratio(self, samples: Samples, kind: str) -> float:
        return samples("inferwatch_capture_ratio", type=kind, upstream=self.upstream)

    async def ours(self) -> Samples:
        """What Inferwatch exports once it has scraped and judged what has happened up to now."""
        await asyncio.sleep(INTERVAL_S + LAG_S)
        return await scrape(self.admin)


@pytest.fixture(scope="module")
def watched(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Scrapes each second, so that a test need not wait long for one."""
    name = "INFERWATCH__ENGINE_METRICS__INTERVAL_S"
    os.environ[name] = str(INTERVAL_S)
    try:
        with running_inferwatch(engine.url, tmp_path_factory.mktemp("state")) as (url, admin):
            yield Watched(engine.url, url, admin)
    finally:
        del os.environ[name]


async def settled(watched: Watched) -> Samples:
    """Wait until the comparison has an anchor, so that all that comes is compared; return what is exported then."""
    await at_rest(watched.engine)
    await until(watched.admin, lambda samples: samples("inferwatch_engine_up") == 1, "engine read")
    await asyncio.sleep(3 * (INTERVAL_S + LAG_S))
    return await scrape(watched.admin)


async def sent(url: str, jobs: list[Job]) -> None:
    """Send `jobs`, some at a time, and read the answers."""
    slots = asyncio.Semaphore(CLIENTS)

    async def one(job: Job) -> None:
        async with slots:
            reply = await exchange(url, Request.post(job.path, job.body))
            assert reply.status == 200

    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(one(job))


def completion(tokens: int) -> Request:
    """A request that generates exactly so many tokens."""
    body = {"model": MODEL, "prompt": words(7, tokens), "max_tokens": tokens, "ignore_eos": True}
    return Request.post(COMPLETIONS, body)


@asynccontextmanager
async def busy(url: str) -> AsyncIterator[None]:
    """Streams one after the other, so that the engine works all the time."""
    over = False

    async def keep_on() -> None:
        seed = 0
        while not over:
            seed += 1
            prompts = [words(7, 100 * seed + number) for number in range(PROMPTS)]
            body = {"model": MODEL, "prompt": prompts, "max_tokens": LONG_TOKENS, "ignore_eos": True, "stream": True}
            reply = await exchange(url, Request.post(COMPLETIONS, body))
            assert reply.status == 200

    async with asyncio.TaskGroup() as group:
        group.create_task(keep_on())
        try:
            yield
        finally:
            over = True


async def test_numbers_are_the_engines_own(engine: Engine, watched: Watched, figures: Figures) -> None:
    """At rest each normalised number equals what vLLM exports under its own name."""
    await sent(watched.url, list(workload(seed=21, count=40)))
    await at_rest(engine.url)
    ours, theirs = await watched.ours(), await scrape(engine.url)
    for (name, kind), source in COUNTERS.items():
        labels = {"type": kind} if kind else {}
        assert ours(name, **labels) == theirs(source), name
    assert ours("inferwatch_engine_tokens_total", type="completion") > 0
    assert ours("inferwatch_engine_requests_running") == theirs("vllm:num_requests_running") == 0
    assert ours("inferwatch_engine_requests_waiting") == theirs("vllm:num_requests_waiting") == 0
    assert ours("inferwatch_engine_kv_cache_usage_ratio") == theirs("vllm:kv_cache_usage_perc")
    assert ours("inferwatch_engine_info", engine="vllm") == 1
    assert ours("inferwatch_engine_restarts_total") == 0
    seconds = ours("inferwatch_engine_scrape_duration_seconds")
    figures.append(("scrape of vLLM's metrics", f"{seconds * 1e3:.0f} ms"))


async def test_a_running_request_shows(engine: Engine, watched: Watched) -> None:
    """While vLLM computes a request, it is in our gauge too, and its KV cache is in use."""
    async with busy(watched.url):
        await until(engine.url, lambda samples: running(samples) > 0, "requests running")
        await until(
            watched.admin,
            lambda samples: (
                samples("inferwatch_engine_requests_running") > 0
                and samples("inferwatch_engine_kv_cache_usage_ratio") > 0
            ),
            "shown",
        )


async def test_closed_traffic_is_captured_exactly(engine: Engine, watched: Watched, figures: Figures) -> None:
    """All kinds of requests through the proxy, sixteen at a time: both ratios are 1, and nothing is unbooked."""
    before = await settled(watched)
    await sent(watched.url, list(workload(seed=22, count=REQUESTS)))
    await at_rest(engine.url)
    ours = await watched.ours()
    counted = ours("inferwatch_engine_tokens_total") - before("inferwatch_engine_tokens_total")
    figures.append(
        (f"captured of {counted:.0f} tokens", f"{watched.ratio(ours, 'prompt')}, {watched.ratio(ours, 'completion')}")
    )

    assert watched.ratio(ours, "prompt") == 1.0
    assert watched.ratio(ours, "completion") == 1.0
    assert ours("inferwatch_unbooked_tokens_total") == before("inferwatch_unbooked_tokens_total")


async def test_a_bypass_shows_within_a_scrape(engine: Engine, watched: Watched, figures: Figures) -> None:
    """100 tokens fetched from the engine directly: the ratio drops, and just these tokens are counted as bypass."""
    before = await settled(watched)
    reply = await exchange(engine.url, completion(BYPASSED_TOKENS))
    prompt = reply.json()["usage"]["prompt_tokens"]
    begin_s = time.perf_counter()
    await until(
        watched.admin,
        lambda samples: watched.ratio(samples, "completion") < watched.ratio(before, "completion"),
        "capture ratio dropped",
    )
    took_s = time.perf_counter() - begin_s
    ours = await watched.ours()
    figures.append(
        (f"{BYPASSED_TOKENS} tokens around the proxy: seen after", f"{took_s:.1f} s (scraped each {INTERVAL_S:.0f} s)")
    )

    assert watched.ratio(ours, "completion") < 1
    assert watched.ratio(ours, "prompt") < 1
    for kind, tokens in (("prompt", prompt), ("completion", BYPASSED_TOKENS)):
        name = "inferwatch_unbooked_tokens_total"
        assert ours(name, type=kind, reason="bypass") - before(name, type=kind, reason="bypass") == tokens
        for reason in ("cut", "unreported"):
            assert ours(name, type=kind, reason=reason) == before(name, type=kind, reason=reason)


async def test_a_bypass_beside_traffic_is_never_overstated(engine: Engine, watched: Watched) -> None:
    """Beside a request under way no more is called bypass than was, and at rest it is exactly that."""
    before = await settled(watched)
    name = "inferwatch_unbooked_tokens_total"
    async with busy(watched.url):
        await exchange(engine.url, completion(BYPASSED_TOKENS))
        while_busy = await watched.ours()
    await at_rest(engine.url)
    after = await watched.ours()

    def grown(samples: Samples) -> float:
        return samples(name, type="completion", reason="bypass") - before(name, type="completion", reason="bypass")

    assert 0 <= grown(while_busy) <= BYPASSED_TOKENS
    assert grown(after) == BYPASSED_TOKENS


async def test_plain_requests_that_are_hung_up_on_get_their_tokens(
    engine: Engine, watched: Watched, figures: Figures
) -> None:
    """No count of a plain answer that was hung up on is on the wire: the engine's is booked, and nothing is missing."""
    before, counted = await settled(watched), await at_rest(engine.url)
    source = random.Random(23)
    jobs = [long_job(source, streamed=False, max_tokens=3000) for _ in range(8)]
    leave = HangUp(after_s=0.3)
    await asyncio.gather(*(exchange(watched.url, Request.post(job.path, job.body), leave) for job in jobs))
    moved = await at_rest(engine.url) - counted
    await compared_anew(watched.admin)
    ours = await watched.ours()
    unbooked, booked = "inferwatch_unbooked_tokens_total", "inferwatch_tokens_total"
    tokens = ours(booked, type="completion") - before(booked, type="completion")
    figures.append(("plain requests hung up on: tokens vLLM / booked late", f"{moved.completion} / {tokens:.0f}"))

    assert tokens == moved.completion > 0
    assert ours(booked, type="prompt") - before(booked, type="prompt") == moved.prompt
    assert ours(unbooked) == before(unbooked)
