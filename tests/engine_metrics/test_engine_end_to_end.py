"""The comparison in the running product, before a simulated engine: also when a process is killed."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import Stack, chat, client, running, send, wait_until

UNBOOKED = "inferwatch_unbooked_tokens_total"
COMPLETION = {"type": "completion"}


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A fast engine, scraped often, and an anchor to compare from."""
    monkeypatch.setenv("INFERWATCH__ENGINE_METRICS__INTERVAL_S", "0.3")
    with running(tmp_path) as stack:
        wait_until(lambda: stack.total("inferwatch_engine_up") == 1, "the engine's metrics")
        asyncio.run(traffic(stack.url, 1))
        wait_until(lambda: stack.total("inferwatch_engine_tokens_total", **COMPLETION) > 0, "a count")
        scrapes(stack, 4)
        yield stack


def scrapes(stack: Stack, count: int) -> None:
    """Wait for so many scrapes, each of which is told apart by how long it took."""
    name = "inferwatch_engine_scrape_duration_seconds"
    for _ in range(count):
        last = stack.total(name)
        wait_until(lambda last=last: stack.total(name) not in (last, 0), "a scrape")  # type: ignore[misc]


async def traffic(url: str, requests: int, tokens: int = 20) -> None:
    async with client() as session:
        answers = await asyncio.gather(
            *(send(session, url, chat(f"hello {number}", max_tokens=tokens)) for number in range(requests))
        )
    assert {status for status, _ in answers} == {200}


def captured(stack: Stack) -> bool:
    """Whether the engine's whole count is booked, by the ratio."""
    ratios = stack.scrape().samples.get("inferwatch_capture_ratio", {})
    return bool(ratios) and set(ratios.values()) == {1.0}


def test_closed_traffic_and_a_bypass(stack: Stack) -> None:
    """Through the proxy the ratio is 1; 100 tokens fetched around it are counted as bypass and it drops."""
    asyncio.run(traffic(stack.url, 30))
    wait_until(lambda: captured(stack), "capture ratio of 1")
    scrapes(stack, 3)
    assert stack.total(UNBOOKED) == 0
    asyncio.run(traffic(stack.engine, 1, tokens=100))
    wait_until(lambda: stack.total(UNBOOKED, reason="bypass", **COMPLETION) == 100, "the bypass")
    assert stack.total("inferwatch_capture_ratio", **COMPLETION) < 1


def test_a_killed_collector(stack: Stack) -> None:
    """After `kill -9` of the collector under traffic no token is missing and none is counted twice."""

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(traffic(stack.url, 60, tokens=60))
            await asyncio.sleep(0.4)
            await asyncio.to_thread(stack.kill, "inferwatch_collectors", signal.SIGKILL)

    asyncio.run(scenario())
    stack.settled(61)
    wait_until(lambda: stack.total("inferwatch_engine_tokens_total", **COMPLETION) == 20 + 3600, "the engine's count")
    wait_until(lambda: captured(stack), "capture ratio of 1")
    scrapes(stack, 3)
    assert stack.total(UNBOOKED) == 0
