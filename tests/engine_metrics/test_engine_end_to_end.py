"""The comparison in the running product, before a simulated engine: also when a process is killed."""

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import Stack, chat, client, running, send, wait_until

from inferwatch_simulator.readings import total

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


async def hang_ups(url: str, requests: int) -> None:
    """Plain requests whose clients leave at different moments, long before the end."""

    async def one(number: int) -> None:
        body = chat(f"hello {number} " * (1 + number % 7), stream=False, max_tokens=3000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1 + 0.09 * number), client() as session:
                await send(session, url, body)
                raise AssertionError(f"request {number} ended before its client left")

    await asyncio.gather(*(one(number) for number in range(requests)))


def booked_and_counted(stack: Stack, kind: str, name: str) -> tuple[float, float]:
    return stack.total("inferwatch_tokens_total", type=kind), total(stack.engine_scrape(), name)


def nothing_is_missing(stack: Stack) -> bool:
    prompt = booked_and_counted(stack, "prompt", "vllm:prompt_tokens_total")
    completion = booked_and_counted(stack, "completion", "vllm:generation_tokens_total")
    return prompt[0] == prompt[1] and completion[0] == completion[1]


def rows(stack: Stack, query: str) -> list[tuple[int | str | None, ...]]:
    with contextlib.closing(sqlite3.connect(stack.folder / "state" / "ledger.sqlite3")) as reader:
        return reader.execute(query).fetchall()


def check_books(stack: Stack, requests: int) -> None:
    """At rest metrics, ledger rows and roll-ups are the engine's own counts, to the token, and stay so."""
    wait_until(lambda: nothing_is_missing(stack), "all tokens booked", detail=lambda: f"{stack.scrape().samples}")
    wait_until(lambda: captured(stack), "capture ratio of 1")
    scrapes(stack, 4)
    assert nothing_is_missing(stack)
    assert stack.total(UNBOOKED) == 0
    late = stack.total("inferwatch_tokens_by_source_total", source="engine_counters", **COMPLETION)
    assert late > 0
    assert stack.total("inferwatch_wasted_tokens_total", reason="client_abort") == late
    counted = total(stack.engine_scrape(), "vllm:generation_tokens_total")
    sums = "SELECT sum(completion_tokens), sum(prompt_tokens) FROM "
    prompts = total(stack.engine_scrape(), "vllm:prompt_tokens_total")
    wait_until(lambda: rows(stack, sums + "requests") == [(counted, prompts)], "the ledger's rows")
    for level in ("usage_minute", "usage_hour", "usage_day", "usage_user_day"):
        assert rows(stack, sums + level) == [(counted, prompts)]
    by_source = rows(stack, "SELECT token_source, count(*) FROM requests WHERE outcome = 'client_abort' GROUP BY 1")
    assert by_source == [("engine_counters", requests)]


def test_plain_requests_that_were_hung_up_on(stack: Stack) -> None:
    """The engine's own count of what they cost is booked to them: nothing is missing, in sum to the token."""
    asyncio.run(hang_ups(stack.url, 1))
    check_books(stack, 1)
    asyncio.run(hang_ups(stack.url, 12))
    asyncio.run(traffic(stack.url, 5))
    check_books(stack, 13)


def test_a_collector_that_is_killed_while_they_wait(stack: Stack) -> None:
    """`kill -9` before, while or after their tokens are given to them: they get them once."""
    asyncio.run(hang_ups(stack.url, 4))
    stack.settled(5)
    for requests in (8, 12, 16):
        stack.kill("inferwatch_collectors", signal.SIGKILL)
        asyncio.run(hang_ups(stack.url, 4))
        stack.settled(requests + 1)
    check_books(stack, 16)
