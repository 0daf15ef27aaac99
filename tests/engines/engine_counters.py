"""Read token counters of the engine and of Inferwatch, and wait for both to come to rest."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from engine_wire import Request, exchange
from prometheus_client.parser import text_string_to_metric_families

REST_LIMIT_S = 60.0  # a stuck request ends a test with a message instead of the suite's time-out
POLL_S = 0.02  # vLLM takes about 35 ms to render /metrics; polling faster would only queue
STATISTICS_LAG_S = 0.5  # vLLM logs a step's statistics after its tokens are on the wire; the books close after the tap


class Samples:
    """One scrape. Indexing sums over labels not given: `samples("inferwatch_tokens_total", type="prompt")`."""

    def __init__(self, text: str) -> None:
        self._samples = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def __call__(self, name: str, **labels: str) -> float:
        return sum(
            value
            for sample_name, sample_labels, value in self._samples
            if sample_name == name and labels.items() <= sample_labels.items()
        )

    def by_label(self, name: str, label: str) -> Counter[str]:
        """Values of `name` summed by one label."""
        found: Counter[str] = Counter()
        for sample_name, labels, value in self._samples:
            if sample_name == name:
                found[labels[label]] += int(value)
        return found


async def scrape(base: str) -> Samples:
    """GET /metrics of `base`."""
    return Samples((await exchange(base, Request("GET", "/metrics"))).body.decode())


@dataclass(frozen=True)
class Tokens:
    """Tokens counted, and by Inferwatch the requests and where the numbers came from."""

    prompt: int
    completion: int
    requests: int = 0
    outcomes: Counter[str] | None = None
    sources: Counter[str] | None = None

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.prompt - other.prompt,
            self.completion - other.completion,
            self.requests - other.requests,
            (self.outcomes or Counter()) - (other.outcomes or Counter()),
            (self.sources or Counter()) - (other.sources or Counter()),
        )


async def engine_tokens(engine_url: str) -> Tokens:
    """vLLM's own counters."""
    samples = await scrape(engine_url)
    return Tokens(int(samples("vllm:prompt_tokens_total")), int(samples("vllm:generation_tokens_total")))


async def booked_tokens(admin_url: str) -> Tokens:
    """Inferwatch's books."""
    samples = await scrape(admin_url)
    return Tokens(
        int(samples("inferwatch_tokens_total", type="prompt")),
        int(samples("inferwatch_tokens_total", type="completion")),
        int(samples("inferwatch_requests_total")),
        samples.by_label("inferwatch_requests_total", "outcome"),
        samples.by_label("inferwatch_tokens_by_source_total", "source"),
    )


def running(samples: Samples) -> float:
    """Requests that vLLM computes right now."""
    return samples("vllm:num_requests_running")


def waiting(samples: Samples) -> float:
    """Requests that vLLM has queued."""
    return samples("vllm:num_requests_waiting")


async def until(base: str, condition: Callable[[Samples], bool], what: str, limit_s: float = REST_LIMIT_S) -> float:
    """Scrape `base` until `condition` holds; returns the seconds it took, raises `TimeoutError` naming `what`."""
    begin = time.perf_counter()
    while not condition(await scrape(base)):
        if time.perf_counter() - begin > limit_s:
            raise TimeoutError(f"{what} not within {limit_s:.0f} s")
        await asyncio.sleep(POLL_S)
    return time.perf_counter() - begin


async def at_rest(engine_url: str) -> Tokens:
    """The engine's counters once it is idle."""
    await until(engine_url, lambda samples: not running(samples) + waiting(samples), "vLLM idle")
    await asyncio.sleep(STATISTICS_LAG_S)
    return await engine_tokens(engine_url)


async def comparing(admin_url: str) -> None:
    """Wait until Inferwatch compares the engine's counts with its books: it begins at a moment of rest."""
    name = "inferwatch_unbooked_tokens_total"
    await until(admin_url, lambda samples: bool(samples.by_label(name, "reason").keys()), "counts compared")


async def compared_anew(admin_url: str, scrapes: int = 4) -> None:
    """Wait until Inferwatch has read the engine's metrics so many times; a scrape is known by how long it took."""
    name = "inferwatch_engine_scrape_duration_seconds"
    for _ in range(scrapes):
        last = (await scrape(admin_url))(name)
        await until(admin_url, lambda samples, last=last: samples(name) not in (0, last), "engine scraped")  # type: ignore[misc]


async def given_back(admin_url: str, before: Tokens) -> None:
    """Wait until Inferwatch has booked what the engine counted for requests that nothing was known of, and a little
    longer: on a busy machine the first comparison may come before the engine's last counts."""
    told = (before.sources or Counter())["engine_counters"]
    name = "inferwatch_tokens_by_source_total"
    await until(admin_url, lambda samples: samples(name, source="engine_counters") > told, "counts given back")
    await compared_anew(admin_url)


async def booked_after(admin_url: str, requests: int) -> Tokens:
    """The books once `requests` requests in all are in them."""
    await until(admin_url, lambda samples: samples("inferwatch_requests_total") >= requests, f"{requests} booked")
    await asyncio.sleep(STATISTICS_LAG_S)
    return await booked_tokens(admin_url)
